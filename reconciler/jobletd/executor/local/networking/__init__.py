"""Networks of jobs: bridges, the filter in front of them, and what gives an attempt its place on one."""
