#!/bin/sh
# In the guest's own root: set up what a booted machine has, then run the command, or hand over to systemd whose unit runs it.
#
#   start.sh           all of it, as pid 1
#   start.sh command   the command alone, as systemd's unit calls it
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
here=/run/guest
. $here/settings

raw_lines() { # bytes pass as they are; also waits until what was written has gone out
    for line in /dev/ttyS1 /dev/ttyS2; do
        stty -F $line raw -echo -hupcl
    done
}

run_command() {
    raw_lines
    setsid --wait /bin/sh $here/command </dev/null >/dev/ttyS1 2>/dev/ttyS2
    status=$?
    raw_lines
    echo $status >$here/status.new
    mv $here/status.new $here/status
    sync
}

if [ "${1:-}" = command ]; then
    run_command
    exit 0
fi

mountpoint -q /run/old && umount -l /run/old
hostname guest
ip link set lo up
printf '127.0.0.1 localhost guest\n::1 localhost\n' >/etc/hosts
for module in $load_modules; do
    modprobe -q "$module"
done

if [ "$init" = command ]; then
    mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 /sys/fs/cgroup
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    done
    run_command
    echo o >/proc/sysrq-trigger
    while :; do sleep 1; done
fi

# ---- systemd
echo guest >/etc/hostname
: >/etc/machine-id
: >/etc/fstab
units=/etc/systemd/system
mkdir -p $units
# A plain service beside the boot, not part of it: so "systemctl is-system-running --wait" can be asked from the command.
cat >$units/guest-command.service <<UNIT
[Unit]
Description=The command that the guest was booted for
After=basic.target
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate
[Service]
Type=exec
ExecStart=/bin/sh $here/start.sh command
UNIT
cat >$units/guest.target <<UNIT
[Unit]
Description=Ready for the command
Requires=basic.target
After=basic.target
Wants=guest-command.service
AllowIsolate=yes
UNIT
# Of no use to a guest that lives for a minute, and slow there.
for unit in \
    apt-daily-upgrade.timer apt-daily.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer man-db.timer \
    console-getty.service getty.target ldconfig.service modprobe@.service proc-sys-fs-binfmt_misc.automount \
    sys-fs-fuse-connections.mount sys-kernel-debug.mount sys-kernel-tracing.mount tmp.mount \
    systemd-binfmt.service systemd-firstboot.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
    systemd-journal-flush.service systemd-modules-load.service systemd-networkd.service systemd-pstore.service \
    systemd-random-seed.service systemd-resolved.service systemd-sysusers.service systemd-timesyncd.service \
    systemd-udev-settle.service systemd-update-done.service; do
    ln -sf /dev/null $units/$unit
done
exec /lib/systemd/systemd --unit=guest.target --log-target=console --log-level=notice --show-status=no
