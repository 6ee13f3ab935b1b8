#!/bin/sh
# The guest's first process: turns the read-only view of the machine's root into a writable root of the guest's own, and moves in.
# Run by the user-mode kernel that tests/guest/boot.py starts; "settings" beside it says what is where.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
. "${0%/*}/settings"

fail() {
    echo "guest: $*"
    mount -t proc proc /proc
    echo o >/proc/sysrq-trigger
    while :; do sleep 1; done
}

# Mounts an overlay of $2, with a writable layer named $1 in the guest's memory, on $3.
overlay() {
    mkdir -p "/run/$1/upper" "/run/$1/work" "$3"
    # The mode and owner of the overlay's top are those of the upper layer.
    chmod --reference="$2" "/run/$1/upper"
    chown --reference="$2" "/run/$1/upper"
    mount -t overlay -o "lowerdir=$2,upperdir=/run/$1/upper,workdir=/run/$1/work" "$1" "$3"
}

mount -t tmpfs -o mode=755,size=50% layers /run || fail "no tmpfs"
grep -qw overlay /proc/filesystems 2>/dev/null || insmod "$kernel_modules/kernel/fs/overlayfs/overlay.ko"
root=/run/root-of-guest
overlay root / $root || fail "no overlay of the root"

mount -t proc -o nosuid,nodev,noexec proc $root/proc || fail "no /proc"
mount -t sysfs -o nosuid,nodev,noexec sysfs $root/sys
mount -t devtmpfs -o mode=755 dev $root/dev
mkdir -p $root/dev/pts $root/dev/shm
mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts $root/dev/pts
mount -t tmpfs -o mode=1777,size=50% shm $root/dev/shm
mount -t tmpfs -o mode=755,size=50% run $root/run
ln -sf /proc/self/fd $root/dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do
    ln -sf "/proc/self/fd/${stream%:*}" "$root/dev/${stream#*:}"
done
chroot $root mount -t ext4 -o nodiscard,noatime /dev/ubda /tmp || fail "no file system for /tmp"
chmod 1777 $root/tmp
# A clone below /tmp or /run has just been covered.
case $repository in
/tmp/* | /run/*) overlay clone "$repository" "$root$repository" || fail "no overlay of $repository" ;;
esac

mkdir -p $root/run/guest $root/run/modules $root/lib/modules
mount -t hostfs -o "$run_directory" exchange $root/run/guest || fail "no exchange with the host"
# By a link, not a mount below /usr: user namespaces may not clone a mount that has locked children.
mount --bind "$kernel_modules" $root/run/modules
ln -sfn /run/modules "$root/lib/modules/$(uname -r)"

# pivot_root, as the kernel gives no user namespace to a process in a chroot.
cd $root || fail "no new root"
mkdir -p run/old
pivot_root . run/old
exec chroot . /bin/sh /run/guest/start.sh </dev/null
