# LatentQ. `make` alone prints what there is.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CHAOS_SECONDS ?= 60
CHAOS_SEED ?= 1
COMPILE := $(BIN)/pip-compile pyproject.toml --generate-hashes --strip-extras \
	--no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --unsafe-package torch

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all chaos bench check fix lock manifests clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv from the lock; does nothing when it is up to date

$(INSTALLED): requirements/lock.txt requirements/torch.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'LatentQ needs Python 3.11 or newer; set PYTHON=...' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo 'This Python cannot make virtual environments; install its venv package.' >&2; exit 2; }
	@# The lock is complete but for torch, which some of its packages ask for and which comes next.
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/lock.txt
	$(BIN)/python -m pip install --quiet -r requirements/torch.txt
	$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## Start everything, draw pictures, save them to demo-output/, stop everything
	$(BIN)/python -m cli.demo

test: install ## Run the core tests against real PostgreSQL, Valkey and SeaweedFS
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-all: install ## Run all tests, the slow ones too
	$(BIN)/python -m pytest

chaos: install ## Break everything at random for CHAOS_SECONDS, by CHAOS_SEED, and judge what became of the jobs
	$(BIN)/python -m tests.chaos.campaign --seconds $(CHAOS_SECONDS) --seed $(CHAOS_SEED)

bench: install ## Measure engine, models, API, dispatch, recovery and scale, and whether the engine keeps its size; needs a quiet machine
	$(BIN)/python -m bench.engine
	$(BIN)/python -m bench.soak
	$(BIN)/python -m bench.models
	$(BIN)/python -m bench.api
	$(BIN)/python -m bench.dispatch
	$(BIN)/python -m bench.recovery
	$(BIN)/python -m bench.scale
	$(BIN)/python -m bench.history

check: install ## Lint, types, import rules, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

fix: install ## Format and mend what a machine can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: install ## Pin the newest versions that pyproject.toml allows
	$(COMPILE) --all-extras --upgrade --output-file requirements/lock.txt
	$(COMPILE) --extra api --extra traces --constraint requirements/lock.txt --upgrade --output-file requirements/service.txt
	$(COMPILE) --extra worker --extra traces --constraint requirements/lock.txt --upgrade --output-file requirements/worker.txt

manifests: install ## Render the Helm chart to deploy/kubernetes
	$(BIN)/python -m tests.deploy.manifests

clean: ## Remove what make and the tests left behind
	rm -rf $(VENV) .latentq demo-output build *.egg-info .pytest_cache .mypy_cache .ruff_cache
