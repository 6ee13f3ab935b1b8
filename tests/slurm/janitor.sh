#!/bin/sh
# Take away what a site of hosts leaves, once whoever made it closes our standard input: also by being killed.
#
#   janitor.sh DIRECTORY CGROUP...
set -u
cat >/dev/null
directory=$1
shift
tries=0
for cgroup; do
    while [ -d "$cgroup" ] && [ "$tries" -lt 200 ]; do
        find "$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null # the hosts' last processes may still be dying
        [ ! -d "$cgroup" ] || sleep 0.05
        tries=$((tries + 1))
    done
done
rm -rf "$directory"
