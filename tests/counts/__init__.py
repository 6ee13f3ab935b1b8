"""Regression guards by counts: what a launch, a job, a help page and a start cost, whatever the machine and its load."""
