"""Manifests: the v1 models, reading with positions, defaults, canonical form, comparison."""
