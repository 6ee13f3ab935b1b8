#!/bin/sh
set -e
# An upgrade leaves the daemon alone until the new files are there: jobs run on.
case $1 in
remove) /opt/joblet/lib/setup.sh remove ;;
esac
