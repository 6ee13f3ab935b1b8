#!/bin/bash
# The first process of a host made of namespaces. Its standard input says when its network is there.
#
#   host_init.sh NAME ADDRESS DISK [CGROUP=MOUNTPOINT...]
#
# DISK holds what is the host's own and outlives its power cuts: a directory for each path in `own`.
set -eu
name=$1 address=$2 disk=$3
shift 3
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
own=(/etc/slurm /etc/munge /var/log /var/spool /var/lib/munge /var/lib/slurm)

mount --make-rprivate /
hostname "$name"
for pair; do mount --bind "${pair%%=*}" "${pair##*=}"; done
mount -t tmpfs -o mode=755 tmpfs /run
for path in "${own[@]}"; do
    mkdir -p "$disk$path"
    mount --bind "$disk$path" "$path"
done
# /opt with a /opt/joblet of our own in it, and all else that is there.
mkdir -p "$disk/opt/joblet"
for entry in /opt/*; do
    if [ -d "$entry" ] && [ "$entry" != /opt/joblet ]; then
        mkdir -p "$disk$entry"
        mount --rbind "$entry" "$disk$entry"
    fi
done
mount --rbind "$disk/opt" /opt
mount --bind "$disk/etc/hosts" /etc/hosts
mkdir -p "$disk/../srv" # one for all hosts, as from a file server
mount --bind "$disk/../srv" /srv
mount --bind "$disk/boot_id" /proc/sys/kernel/random/boot_id
ip link set lo up
echo namespaces
read -r _ # the other end of eth0 is plugged in
if [ -e /sys/fs/cgroup/cgroup.subtree_control ]; then # v2: only a cgroup without processes shares its controllers out
    mkdir /sys/fs/cgroup/init.scope /sys/fs/cgroup/system.slice
    echo $$ >/sys/fs/cgroup/init.scope/cgroup.procs
    for directory in /sys/fs/cgroup /sys/fs/cgroup/system.slice; do
        sed 's/[a-z]\+/+&/g' /sys/fs/cgroup/cgroup.controllers >"$directory/cgroup.subtree_control"
    done
fi
ip addr add "$address/24" dev eth0
ip link set eth0 up
echo up
exec </dev/null >/dev/null
trap 'exit 0' TERM
while :; do # reaps whatever daemons leave
    sleep infinity &
    wait $! || :
done
