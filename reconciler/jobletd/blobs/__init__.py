"""Contents of files that jobs use, by their SHA-256: taken from clients, checked, kept as long as a job names them."""
