"""Secrets: sealed under a key of the host before anything is stored, opened only to be handed to an attempt."""
