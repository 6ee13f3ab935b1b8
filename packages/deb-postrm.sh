#!/bin/sh
set -e
case $1 in
remove)
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
    ;;
purge)
    for name in config certs logs log spool state run seccomp images; do
        rm -rf --one-file-system "/opt/joblet/$name"
    done
    rm -rf /var/log/joblet
    rmdir /opt/joblet 2>/dev/null || true # somebody else's files may be in it
    ;;
esac
