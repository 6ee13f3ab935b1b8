# Everything runs in .venv, which tools/bootstrap makes and keeps current. "make help" lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PYTHONUNBUFFERED := 1

python := .venv/bin/python
pytest := $(python) -m pytest

.PHONY: help environment run-packages test-packages bench-packages run test native-test guest-test machine-test kernel-fuzz lint bench stress load \
	debian-root soak slurm-soak fuzz build clean deb rpm install uninstall setup-remote-passwordless deploy service-status live-log

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 28

environment:
	@tools/bootstrap

run-packages:
	@tools/system-packages run

test-packages:
	@tools/system-packages test

bench-packages:
	@tools/system-packages bench || echo "a peer that is missing is left out, and the page says so"

run: environment run-packages ## show the main job end to end, in a throw-away directory (root)
	@$(python) tools/demo.py

# File by file, in one worker more than there are processors, as tests wait about as much as they compute; the long files first.
native := $(pytest) -n $$(( $$(nproc) < 8 ? $$(nproc) + 1 : 8 )) --dist loadfile --no-loadscope-reorder \
	tests/faults tests/hostile tests/guest tests/slurm tests/executors tests/counts tests/integration tests/unit
# The same integration tests, attacks, and crash points of launcher and init where the hierarchy is cgroup v2; and what needs
# systemd, tests/systemd, which installs the package.
in_guests := tests/integration tests/hostile tests/faults/test_crash_points.py tests/systemd

# With T= only that part, natively. Without, the native run with the guests beside it, which are a process of one processor each.
test: environment test-packages $(if $(T),,deb) ## all tests (root); T=tests/unit/manifest runs that part alone
	$(if $(T),$(pytest) $(T),$(python) -m tests.guest.beside $(in_guests) -- $(native))

native-test: environment test-packages
	$(native)

guest-test: environment test-packages deb ## integration tests and attacks in a booted guest with cgroup v2 (root); T= for a part
	$(python) -m tests.guest $(or $(T),$(in_guests))

machine-test: environment test-packages ## networks on cgroup v2 in a machine that QEMU emulates; ARCH=arm64: seccomp and attacks there (root, by hand, minutes); T=
	$(python) -m tests.guest.machine $(addprefix --arch ,$(ARCH)) $(T)

kernel-fuzz: environment test-packages ## a fuzzer of system calls in a job, in a machine that QEMU emulates (root, by hand, minutes); MINUTES=4
	$(python) -m tests.guest.machine --timeout 1800 -- $(python) -m tests.hostile.fuzzer --minutes $(or $(MINUTES),4)

lint: environment ## style, types, import rules, generated code
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(python) tools/generate_api.py --check
	$(python) tools/generate_schema.py --check

bench: environment test-packages bench-packages ## benchmarks beside peers, into docs/BENCHMARKS.md (root, minutes); B=launch prints one alone
	@$(python) -m tests.bench $(B)

stress: environment test-packages ## stress-ng in a job, and what a launch costs beside it (root); MINUTES=2 of each class
	@$(python) -m tests.hostile.stress --minutes $(or $(MINUTES),1)

load: environment test-packages ## 10,000 jobs, 1,000 watchers, a storm in the spool (root, some 10 minutes); L=spool for a part
	@$(python) -m tests.faults.load $(L)

debian-root: environment test-packages ## jobs on a whole Debian made by debootstrap (root, a mirror); ROOT=DIR takes one that is there
	@$(python) -m tests.bench.debian_root $(if $(ROOT),--root $(ROOT))

soak: environment test-packages ## jobs from all sources while daemon, launcher and inits are killed at random (root); MINUTES=60 SEED=1
	@$(python) -m tests.faults.soak --minutes $(or $(MINUTES),2) $(if $(SEED),--seed $(SEED))

slurm-soak: environment test-packages ## jobs on a cluster of three nodes while nodes, slurmctld and the daemon are lost (root); JOBS=1000
	@$(python) -m tests.slurm.soak --jobs $(or $(JOBS),1000)

fuzz: environment test-packages ## try every reader of bytes from outside with mutated input (root); MINUTES=10, F= for some of them
	@$(python) -m tests.faults.fuzz --minutes $(or $(MINUTES),2) $(F)

build: environment ## wheel and source distribution, into dist/
	$(python) -m hatchling build

deb: environment ## package for Debian and Ubuntu, into dist/; ARCH=arm64 for another architecture than this machine's
	$(python) -m tools.package deb $(addprefix --arch ,$(ARCH))

rpm: environment ## package for Fedora, RHEL and their like, into dist/; ARCH=arm64
	$(python) -m tools.package rpm $(addprefix --arch ,$(ARCH))

install: environment ## Joblet on this machine, from this clone, into PREFIX=/opt/joblet (root); DESTDIR= only puts files there
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) tools/install

uninstall: ## what make install put there; configuration and data stay (root)
	@PREFIX=$(PREFIX) tools/install --remove

# On another machine: REMOTE_HOST=, REMOTE_USER=root, REMOTE_DIR=/opt/joblet, REMOTE_PORT=22, SSH_OPTIONS=
export REMOTE_HOST REMOTE_USER REMOTE_DIR REMOTE_PORT SSH_OPTIONS

setup-remote-passwordless: ## once: lets make deploy in on REMOTE_HOST by key, and do its part as root
	@tools/deploy setup

deploy: environment ## Joblet on REMOTE_HOST, over an earlier version too; its jobs run on
	@tools/deploy deploy

service-status: ## systemctl status joblet on REMOTE_HOST
	@tools/deploy status

live-log: ## the daemon's log on REMOTE_HOST, as it goes on
	@tools/deploy log

clean: ## remove what was built and cached; .venv stays
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
