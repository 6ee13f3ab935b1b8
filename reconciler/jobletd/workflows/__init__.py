"""Workflows: a controller that declares the jobs of steps one after the other, and nothing that runs by itself."""
