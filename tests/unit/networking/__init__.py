"""Networks of jobs, without a kernel: names, addresses, rules, files."""
