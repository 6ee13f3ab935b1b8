"""Whole hosts: the real daemon, the real client, the real kernel."""
