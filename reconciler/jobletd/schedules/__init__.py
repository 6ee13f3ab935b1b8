"""Schedules: which ticks of a job are due, what becomes of each, and the step that puts that on record."""
