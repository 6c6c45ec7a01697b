# Everything that one does with Treering, from a bare checkout: each target first sets up what it lacks.
#
# .venv/.stamp says that .venv holds what requirements-dev.lock names, with this checkout installed on top;
# it is made anew when the lock, pyproject.toml or the native kernel changes, or when a package is added.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test check format test-long mutate bench wheel-check lock clean print-python
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

DATA ?= data
PORT ?= 8400
JOBS ?= auto
ARGS ?=

# The first Python >= 3.11 on the PATH that runs and can make virtual environments.  Each candidate is tried,
# since a name on the PATH may be a version manager's stub that answers only with an error.
PYTHON ?= $(shell IFS=:; for name in python3.13 python3.12 python3.11 python3; do for dir in $$PATH; do \
  "$$dir/$$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && echo "$$dir/$$name" && exit; done; done)
UV_VERSION := 0.13.9
BIN := .venv/bin
PIP := python -m pip --disable-pip-version-check -qq
PACKAGES := merkle archive reducers replay api tools
# Each worker begins with a stretch of its own, so that files, and what their tests share, stay together; who is done
# takes from the end of another's.
parallel = --numprocesses $(JOBS) --dist worksteal

help: ## list what can be made (this)
	@echo "Treering: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1  \2/p' Makefile

run: .venv/.stamp ## serve on http://127.0.0.1:8400, data in ./data (PORT=, DATA=, ARGS= change it)
	@exec $(BIN)/treering serve --data "$(DATA)" --port $(PORT) $(ARGS)

demo: .venv/.stamp ## serve, with a simulated classroom typing (ARGS= for options)
	@exec $(BIN)/treering demo $(ARGS)

test: .venv/.stamp ## all tests but those marked long, on all cores (ARGS="-k name" narrows it, JOBS=0 is one process)
	@$(BIN)/python -m pytest -q -m "not long" $(parallel) $(ARGS)

check: .venv/.stamp ## format, lint, types and the fast tests: run it before a commit
	@$(BIN)/ruff format --check --quiet . || { echo "ruff format: run 'make format'"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -m "not process and not long and not conformance" $(parallel) $(ARGS)

format: .venv/.stamp ## put the source into its usual form
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

test-long: .venv/.stamp ## the tests that take minutes each
	@$(BIN)/python -m pytest -q -m long -o timeout=3600 -o faulthandler_timeout=3500 $(ARGS)

mutate: .venv/.stamp ## change the source in small ways, one at a time: do the tests notice? (minutes; ARGS=)
	@exec nice -n 10 $(BIN)/python -m tests.mutate $(ARGS)

bench: .venv/.bench-stamp ## measure, as ratios within one run (figures, no verdict)
	@exec $(BIN)/python -m benchmarks $(ARGS)

wheel-check: .venv/.stamp ## build the wheel and try it in an environment of its own
	@PYTHON=$(BIN)/python sh tools/wheel_check.sh

lock: .venv-lock/.stamp ## resolve the dependencies of pyproject.toml anew, newest versions first
	@$(call compile,requirements.lock,--upgrade)
	@$(call compile,requirements-dev.lock,--upgrade --extra dev --constraints requirements.lock)
	@$(call compile,requirements-bench.lock,--upgrade --extra bench --constraints requirements-dev.lock)
	@echo "treering: wrote requirements.lock, requirements-dev.lock and requirements-bench.lock"

clean: ## remove environments, caches and builds (never data)
	@rm -rf .venv .venv-lock build dist *.egg-info archive/*.so .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find $(PACKAGES) tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

print-python:
	@echo "$(PYTHON)"

# One file for every Python >= 3.11 and every platform; it names no index, so each site uses its own.
compile = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
  --output-file $(1) $(2) pyproject.toml

.venv/.stamp: pyproject.toml setup.py $(wildcard archive/_kernel*.c) requirements-dev.lock $(wildcard $(PACKAGES:=/py.typed))
	@$(call environment,.venv)
	@$(BIN)/$(PIP) install --require-hashes --requirement requirements-dev.lock
	@$(BIN)/$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.bench-stamp: .venv/.stamp requirements-bench.lock
	@$(BIN)/$(PIP) install --require-hashes --requirement requirements-bench.lock
	@touch $@

.venv-lock/.stamp: Makefile
	@$(call environment,.venv-lock)
	@.venv-lock/bin/$(PIP) install uv==$(UV_VERSION)
	@touch $@

# Keep a working environment and bring it up to date; make a missing or broken one anew.
environment = $(1)/bin/python -m pip --version >/dev/null 2>&1 && exit; \
  test -n "$(PYTHON)" || { echo "treering: no Python >= 3.11 with venv on the PATH." \
  "Install one (Debian: apt install python3-venv) or name it: make PYTHON=/path/to/python" >&2; exit 1; }; \
  echo "treering: setting up $(1) with $(PYTHON) (once, about a minute)" >&2; \
  "$(PYTHON)" -m venv --clear $(1)
