"""The script of joblet harden."""
