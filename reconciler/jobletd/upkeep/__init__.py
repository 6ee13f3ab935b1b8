"""Upkeep by jobs: what a job may ask the daemon to do, through a socket that only its attempt can reach."""
