"""What every executor promises, held against each of them with the real thing behind it."""
