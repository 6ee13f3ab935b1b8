#!/bin/sh
# The name that Go Joblet's guide has for it: makes the certificates and embeds them into the configuration, or exchanges those
# that are there. JOBLET_SERVER_ADDRESS: a name or address by which clients reach this host. See docs/CERTIFICATES.md.
set -eu

config=${JOBLET_CONFIG_PATH:-/opt/joblet/config/joblet-config.yml}
if [ -n "${JOBLET_SERVER_ADDRESS:-}" ] && [ "$JOBLET_SERVER_ADDRESS" != 0.0.0.0 ]; then
	set -- --address "$JOBLET_SERVER_ADDRESS" "$@"
fi
# That variable names the address to listen on as well; here it is the one for clients.
unset JOBLET_SERVER_ADDRESS
if [ -e "$config" ] && grep -q 'serverCert' "$config"; then
	exec joblet certs rotate --config "$config" "$@"
fi
exec joblet certs init --config "$config" "$@"
