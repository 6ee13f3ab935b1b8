#!/bin/sh
set -e
case $1 in
configure) /opt/joblet/lib/setup.sh configure ;;
esac
