"""Attacks on the sandbox, one manifest a family in attacks/; each must fail, and leave the host and a victim job unharmed."""
