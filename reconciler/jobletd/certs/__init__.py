"""The host's certificates: what is there, what is due, and how they are exchanged while everything runs."""
