"""What the daemon tells Prometheus: instruments that its parts count with, facts read at each scrape, and the endpoint."""
