"""What holds for the project as a whole: its build, its import rules, its test rules."""
