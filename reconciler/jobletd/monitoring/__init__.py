"""What the host and its running jobs use, now."""
