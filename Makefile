# Agent Factory. `make run` and `make test` need nothing but python3 (with venv); everything else they bring themselves.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run test check format soak bench screenshots lock clean dev

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run:  ## set up what is missing, then serve on http://127.0.0.1:8080
	@$(PYTHON) deploy/setup.py
	@$(BIN)/factory serve

test: dev  ## set up what is missing, then check and test everything
	@$(BIN)/python -m tests.run

check: dev  ## format, lint, import contracts and types, without tests
	@$(BIN)/python -m tests.run check

format: dev  ## bring the code into its format
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

soak: dev  ## break everything on purpose, for more than an hour: nothing accepted is lost; writes docs/soak.md
	@$(BIN)/python -m tests.run soak

bench: dev  ## measure; one figure alone: make bench ONLY="W1@64"
	@$(BIN)/python -m tests.bench $(if $(ONLY),--only "$(ONLY)")

screenshots: dev  ## renew docs/screenshots with the browser tests
	@FACTORY_SHOTS=1 $(BIN)/pytest -q -m browser

# No package younger than two weeks enters a lock, but one that is pinned by name; none holds a download address.
CUTOFF ?= $(shell date --utc --date "2 weeks ago" +%F)
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --exclude-newer $(CUTOFF) --exclude-newer-package sqlmodel=$(shell date --utc +%F)

# What goes into images of workers: for their Python alone, and for nothing but Linux.
COMPILE_IMAGE = $(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
	--generate-hashes --no-header --no-emit-index-url --no-annotate --exclude-newer $(CUTOFF)

lock: dev  ## lock newer versions of all packages
	@$(COMPILE) --group setup -o deploy/requirements-uv.lock
	@$(COMPILE) --group build -o deploy/requirements-build.lock
	@$(COMPILE) pyproject.toml --all-extras -o requirements.lock
	@$(COMPILE) pyproject.toml --all-extras --group dev -o requirements-dev.lock
	@for image in data node; do $(COMPILE_IMAGE) runtime/workers/image/$$image.in -o runtime/workers/image/$$image.lock; done
	@echo "Locked. Run make test, then commit the lock files."

clean:  ## remove everything that was made here, but not your data
	@rm -rf .venv .cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache app/canvas/vendor dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

dev:
	@$(PYTHON) deploy/setup.py --dev
