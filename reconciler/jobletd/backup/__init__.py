"""Backups of the daemon's state, what is put back from them, and what a state of yesterday means for the jobs of today."""
