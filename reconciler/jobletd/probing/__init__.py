"""Health of services: who is ready, and what follows from it."""
