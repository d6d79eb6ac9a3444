# Four commands: `make demo`, `make test`, `make conformance` and `make nightly`. Each makes what it
# needs; none needs more than Python 3.11 or newer with venv, and make (and node, for one client).
PYTHON ?= python3
# Compiled modules are kept: every server and every training run imports torch anew.
unexport PYTHONDONTWRITEBYTECODE
TORCH ?= cpu
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# Two processes of one compute thread each: more would fight for the cores.
PYTEST = OMP_NUM_THREADS=1 .venv-dev/bin/pytest -n 2 --dist loadfile
SETUP = $(PYTHON) scripts/setup.py --torch $(TORCH) --torch-cpu-index $(TORCH_CPU_INDEX)

.PHONY: demo test conformance nightly lint types imports unit format clean help

help:  ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .python  ## install, then tune a model on real data and compare it with its base
	@$(SETUP) .venv
	@.venv/bin/python scripts/demo.py

test: .python  ## install with the development tools, then lint, types, import rules and the tests
	@$(SETUP) .venv-dev --dev
	@$(MAKE) --no-print-directory lint types imports unit

conformance: .python  ## the slow tests; then, with other clients, hold the server to OpenAI's contract
	@$(SETUP) .venv-dev --dev
	@.venv-dev/bin/tunery models pull
	@.venv-dev/bin/python scripts/client_venvs.py
	$(PYTEST) -m slow tests/acceptance
	OMP_NUM_THREADS=1 .venv-dev/bin/pytest tests/conformance

nightly: .python  ## the long runs, each with a seed; figures go to build/nightly
	@$(SETUP) .venv-dev --dev
	@.venv-dev/bin/tunery models pull
	OMP_NUM_THREADS=1 .venv-dev/bin/pytest tests/nightly $(if $(SEED),--seed $(SEED))

lint:
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .

types:
	.venv-dev/bin/mypy

imports:
	.venv-dev/bin/lint-imports

unit:
	.venv-dev/bin/tunery models pull
	$(PYTEST) -m "not slow"

format:  ## bring the code into its form
	.venv-dev/bin/ruff check --fix-only .
	.venv-dev/bin/ruff format .

clean:  ## remove what was installed
	rm -rf .venv .venv-dev .clients tests/conformance/node/node_modules

.PHONY: .python
.python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) found; install Python 3.11 or newer."; exit 1; }
