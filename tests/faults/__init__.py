"""Faults of every sort, injected: what is promised holds all the same, seen from outside."""
