"""Certificates and roles."""
