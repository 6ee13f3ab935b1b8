#!/bin/sh
# Makes a tree that was put in place a running Joblet, and undoes it: for the scripts of both packages, make install and make deploy.
#
#   setup.sh configure   after files were put in place, for the first time or over an earlier version
#   setup.sh remove      before the files go: nothing runs any more; configuration and data stay
#
# JOBLET_SERVER_ADDRESS at the first configure: a name or address by which clients reach this host (default: loopback alone).
set -eu
prefix=@PREFIX@
# What lies here is the distribution's: nothing of a user's own is run as root, or linked to.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

say() { echo "joblet: $*" >&2; }

supervised() { [ -d /run/systemd/system ]; }

# Where an administrator forbids that packages start services, this one does not either.
systemctl_allowed() {
    if command -v deb-systemd-invoke >/dev/null; then deb-systemd-invoke "$@"; else systemctl "$@"; fi
}

link_python() { # the first that is 3.11 to 3.14: what is compiled here was compiled for those
    for candidate in python3 python3.11 python3.12 python3.13 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            ln -sfn "$(command -v "$candidate")" "$prefix/lib/python3"
            return
        fi
    done
    say "needs Python 3.11, 3.12, 3.13 or 3.14 in /usr/bin (install python3 or python3.11)"
    exit 1
}

# Below ProtectSystem= and for people who are not root nothing could be written here later.
compile() {
    "$prefix/lib/python3" -IS -m compileall -q -x '/pygments/(lexers|styles)/' "$prefix/lib/site-packages"
}

users_and_directories() {
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers /usr/lib/sysusers.d/joblet.conf
    elif ! getent passwd joblet >/dev/null; then
        useradd --system --user-group --home-dir "$prefix" --no-create-home --shell /usr/sbin/nologin joblet
    fi
    if command -v systemd-tmpfiles >/dev/null; then
        systemd-tmpfiles --create /usr/lib/tmpfiles.d/joblet.conf
    else
        install -d -m 0700 "$prefix/config" "$prefix/certs"
        install -d -m 0750 -g joblet "$prefix/logs" /var/log/joblet
    fi
}

dropin=/usr/lib/systemd/system/joblet.service.d/50-delegate-subgroup.conf

# See systemd/delegate-subgroup.conf: a key that earlier versions of systemd do not know.
fit_to_systemd() {
    version=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    if [ "${version:-0}" -ge 254 ]; then
        install -D -m 0644 "$prefix/lib/delegate-subgroup.conf" "$dropin"
    else
        rm -f "$dropin"
    fi
}

first_configuration() {
    [ ! -e "$prefix/config/joblet-config.yml" ] || return 0
    address=${JOBLET_SERVER_ADDRESS:-}
    unset JOBLET_SERVER_ADDRESS # the daemon would listen there
    # --address only if there is one
    "$prefix/bin/joblet" init --root "$prefix" --cgroup-base /sys/fs/cgroup/joblet.slice/joblet.service \
        ${address:+--address "$address"} >/dev/null
}

# The daemon is exchanged as if it had crashed, which jobs do not notice whatever server.onShutdown says: it keeps nothing in memory
# that has to be written down.
start() {
    if ! supervised; then
        say "systemd does not run here: start $prefix/bin/joblet serve by other means"
        return
    fi
    systemctl daemon-reload
    if systemctl is-active --quiet joblet.service; then
        systemctl kill --kill-who=main --signal=KILL joblet.service
    elif ! systemctl is-enabled --quiet joblet.service && [ -z "$upgraded" ]; then
        systemctl enable --quiet joblet.service
    fi
    systemctl is-enabled --quiet joblet.service || return 0 # disabled by the administrator: stays as it is
    systemctl_allowed start joblet.service || say "the daemon did not start: journalctl -u joblet tells why"
}

tell() {
    version=$("$prefix/bin/joblet" --version)
    cat <<TEXT
$version is set up under $prefix.
  $prefix/config/joblet-config.yml       the daemon's configuration
  $prefix/config/rnx-config.yml          for clients that may do all: copy it to ~/.rnx/rnx-config.yml of who uses rnx
  $prefix/config/rnx-config-viewer.yml   for clients that may read
Look: systemctl status joblet; rnx nodes; joblet doctor
TEXT
}

configure() {
    upgraded=
    [ ! -e "$prefix/config/joblet-config.yml" ] || upgraded=yes
    link_python
    compile
    users_and_directories
    first_configuration
    fit_to_systemd
    start
    tell
}

remove() {
    if supervised; then
        systemctl --quiet disable --now joblet.service || say "the daemon could not be stopped"
        # With server.onShutdown: keep there are jobs yet; nobody would look after them.
        "$prefix/bin/joblet" cleanup >/dev/null || say "not everything could be ended: see $prefix/bin/joblet cleanup"
        systemctl --quiet stop joblet.slice 2>/dev/null || true # once it was in use, its empty cgroup stays until it is stopped
    fi
    find "$prefix/lib/site-packages" -name __pycache__ -prune -exec rm -rf {} +
    rm -f "$prefix/lib/python3" "$dropin"
    rmdir "${dropin%/*}" 2>/dev/null || true # not there, or with somebody else's files
}

case ${1:-} in
configure | remove) "$1" ;;
*)
    echo "usage: setup.sh configure|remove" >&2
    exit 2
    ;;
esac
