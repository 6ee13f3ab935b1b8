#!/bin/sh
# 0: the last version goes; 1: it is an upgrade, which leaves the daemon alone.
[ "$1" -ne 0 ] || /opt/joblet/lib/setup.sh remove
