"""Joblet's core: what both the daemon and the client know.

Imported by the launcher, whose start-up and memory are part of the product: nothing may be imported here.
"""

__version__ = "0.1.0"
