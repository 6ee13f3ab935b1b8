"""Manifests in the words of other engines, and what is lost on the way. Pure."""
