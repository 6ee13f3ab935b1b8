"""The client. Runs wherever Python does: nothing Linux-only is imported here."""
