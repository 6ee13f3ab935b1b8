"""What makes the host around the daemon harder to attack: ``joblet harden --print``, and the files of fail2ban."""
