#!/bin/sh
set -eu
echo "visits a day, busiest first:"
sort -t, -k2,2nr "$1"
