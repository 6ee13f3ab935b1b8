"""Git repositories as sources: fetched without ever being checked out, so that nothing in them is run."""
