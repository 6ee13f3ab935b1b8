#!/bin/sh
/opt/joblet/lib/setup.sh configure
