"""Arrays: one run of a job for many indexes, each of which is a run of its own below it."""
