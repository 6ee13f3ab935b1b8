"""A Linux guest with cgroup v2, and with systemd if asked for, that boots in seconds on this machine's own root file system."""
