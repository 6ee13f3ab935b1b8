#!/bin/sh
# Puts the tree that tools/package.py makes in place and starts it; for make install, and as joblet-deploy on hosts that are deployed to.
#
#   unpack.sh install DIR < tree.tar   all of it or nothing; over an earlier version too, whose jobs run on
#   unpack.sh remove DIR               configuration and data stay
#   unpack.sh status | log             of the daemon
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
umask 022

fail() {
    echo "joblet: $*" >&2
    exit 1
}

check_directory() {
    case $1 in
    /*) ;;
    *) fail "$1: the directory has to be an absolute path" ;;
    esac
    case $1 in
    *[!A-Za-z0-9/._-]* | */../* | */..) fail "$1: the directory may have letters, digits and . _ - in its name" ;;
    esac
    if [ -e "$1/bin/joblet" ] && packaged "$1/bin/joblet"; then
        fail "$1 belongs to a package: install a newer package (make deb), or remove it first"
    fi
}

packaged() {
    { command -v dpkg >/dev/null && dpkg -S "$1" >/dev/null 2>&1; } || { command -v rpm >/dev/null && rpm -qf "$1" >/dev/null 2>&1; }
}

install_tree() {
    directory=$1
    check_directory "$directory"
    mkdir -p "$directory"
    new=$(mktemp -d "$directory/.new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    tar -x -z -f - -C "$new" --no-same-owner || fail "the tree did not arrive whole; nothing was changed"
    [ -e "$new$directory/lib/setup.sh" ] || fail "the tree was made for another directory; nothing was changed"
    # The libraries change in one step: whatever imports one meanwhile finds all of the old ones or all of the new.
    old=$directory/lib.old
    rm -rf "$old"
    [ ! -d "$directory/lib" ] || mv "$directory/lib" "$old"
    mv "$new$directory/lib" "$directory/lib"
    (cd "$new" && find . ! -type d) | sed 's/^\.//' >"$directory/lib/installed-files"
    cp -a "$new/." /
    rm -rf "$old"
    "$directory/lib/setup.sh" configure
}

remove_tree() {
    directory=$1
    check_directory "$directory"
    list=$directory/lib/installed-files
    [ -e "$list" ] || fail "$directory was not installed by make install or make deploy"
    "$directory/lib/setup.sh" remove
    while read -r path; do rm -f "$path"; done <"$list"
    rm -rf "${directory:?}/lib"
    rmdir "$directory/bin" /usr/share/doc/joblet
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
    echo "Configuration and data are still in $directory and /var/log/joblet."
}

case ${1:-} in
install) install_tree "${2:?DIR}" ;;
remove) remove_tree "${2:?DIR}" ;;
status) systemctl --no-pager status joblet.service ;;
log) journalctl --unit joblet.service --lines 50 --follow ;;
*)
    echo "usage: $0 install DIR | remove DIR | status | log" >&2
    exit 2
    ;;
esac
