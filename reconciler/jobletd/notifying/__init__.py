"""Tells how runs end, outside of this host or by jobs of their own: durable, retried, signed."""
