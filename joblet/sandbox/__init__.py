"""The sandbox: launcher and init. Started without site-packages; nothing may be imported here."""
