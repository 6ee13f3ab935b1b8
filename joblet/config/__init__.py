"""Configuration files of the daemon and of the client."""
