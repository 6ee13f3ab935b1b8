/opt/joblet/lib/setup.sh configure
