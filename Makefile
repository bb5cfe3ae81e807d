# Every target works from a fresh clone on a machine with Python >= 3.11 (with venv), make and git.
# `make` alone says what there is.

PYTHON ?= python3
UV_VERSION := 0.13.9
WORKERS ?= 2
# Tests wait more than they compute.
TEST_WORKERS ?= 3

.DEFAULT_GOAL := help
SHELL := /bin/bash

BIN := .venv/bin
RUN := $(BIN)/python
TIMED := .ci/timed
STAMP := .venv/.synced
MANIFESTS := pyproject.toml uv.lock $(wildcard libs/*/pyproject.toml services/*/pyproject.toml operators/*/pyproject.toml)

# A folder whose name is no identifier (tenant-registry) cannot be part of a module's name; the tests of such
# a service are type-checked on their own, as `tests.…`.
with_python = $(foreach folder,$(1),$(if $(shell find $(folder) -name '*.py' -print -quit),$(folder)))
HYPHENATED = $(call with_python,$(wildcard services/*-*/tests operators/*-*/tests))
TYPED = conftest.py libs/contracts/generate.py deploy $(call with_python,$(wildcard libs/*/src services/*/src operators/*/src examples images) \
  tests $(filter-out $(HYPHENATED),$(wildcard libs/*/tests services/*/tests operators/*/tests)))

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^##@ /{printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z-]*:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Everyday

.PHONY: setup
setup: $(STAMP) ## Create .venv as locked (ready at once when nothing changed)

$(STAMP): $(MANIFESTS)
	@echo "Setting up .venv as locked (half a minute the first time)" >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv .venv || { echo "Python's venv module is needed (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/uv --version 2>/dev/null | grep -qF 'uv $(UV_VERSION)' || $(RUN) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@UV_PROJECT_ENVIRONMENT=.venv $(BIN)/uv sync --all-packages --frozen --compile-bytecode --quiet --python $(RUN)
	@touch $@

.PHONY: fmt
fmt: setup ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/buf format -w protos --path protos/tlsy

.PHONY: contracts
contracts: setup ## Generate the stubs in libs/contracts again from protos/
	@$(RUN) libs/contracts/generate.py

.PHONY: clean
clean: ## Remove caches and build output (.venv and the demo's data stay)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

##@ Checks and tests

.PHONY: check
check: setup ## Everything that needs no server: style, types, boundaries, contracts (at most 90 s)
	@$(TIMED) check $(MAKE) --no-print-directory --keep-going --output-sync=target --jobs=$(WORKERS) check-types check-shape check-style check-imports check-protos check-lock

.PHONY: check-style check-types check-imports check-protos check-shape check-lock
check-style: setup
	@echo '--- style: ruff check, ruff format'
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .

check-types: setup
	@echo '--- types: mypy'
	@failed=0; $(BIN)/mypy $(TYPED) || failed=1; \
	for tests in $(HYPHENATED); do MYPYPATH=$$(dirname $$tests) $(BIN)/mypy $$tests || failed=1; done; exit $$failed

check-imports: setup
	@echo '--- imports: contracts of import-linter'
	@$(BIN)/lint-imports --no-logo

check-protos: setup
	@echo '--- protos: buf lint, buf format, buf breaking'
	@$(BIN)/buf lint protos
	@$(BIN)/buf format --diff --exit-code protos --path protos/tlsy
	@.ci/breaking $(BIN)/buf

check-shape: setup
	@echo '--- shape: tests/architecture, and that the stubs are what the protos give'
	@$(RUN) -m pytest tests/architecture $(ARGS)

check-lock: setup
	@echo '--- lock: uv lock --check'
	@$(BIN)/uv lock --check --no-progress

# Linters of their own environment, which nothing else needs.
LINTERS := build/delivery
LINT := $(LINTERS)/bin
SKAFFOLD := github.com/GoogleContainerTools/skaffold/v2@v2.16.1

$(LINTERS)/.synced: $(STAMP) uv.lock
	@UV_PROJECT_ENVIRONMENT=$(LINTERS) $(BIN)/uv sync --only-group delivery --frozen --quiet --python $(RUN)
	@touch $@

.PHONY: check-delivery
check-delivery: $(LINTERS)/.synced ## Workflows, scripts, Dockerfiles, skaffold.yaml, and secrets in the whole history (needs Go)
	@$(TIMED) check-delivery $(MAKE) --no-print-directory --keep-going --output-sync=target --jobs=$(WORKERS) check-history check-workflows check-scripts check-skaffold

.PHONY: check-history check-workflows check-scripts check-skaffold
check-history:
	@echo '--- secrets in the whole history: gitleaks'
	@program=$$(.ci/tool gitleaks) && $$program git --no-banner --no-color --log-level=warn --redact --verbose .

check-workflows: $(LINTERS)/.synced
	@echo '--- workflows: actionlint, zizmor'
	@program=$$(.ci/tool actionlint) && PATH=$(CURDIR)/$(LINT):$$PATH $$program
	@$(LINT)/zizmor --offline --quiet .github

check-scripts: $(LINTERS)/.synced
	@echo '--- scripts and Dockerfiles: shellcheck, hadolint'
	@$(LINT)/shellcheck $$(git grep --files-with-matches --extended-regexp '^#!.*\bbash' -- .ci)
	@git ls-files -z '*Dockerfile' | xargs --null --no-run-if-empty $(LINT)/hadolint --failure-threshold warning

check-skaffold: $(LINTERS)/.synced
	@echo '--- skaffold.yaml: the published schema of its version'
	@module=$$(GOFLAGS=-mod=mod go mod download -json $(SKAFFOLD) | sed -n 's/^\s*"Dir": "\(.*\)",$$/\1/p') && \
	$(LINT)/check-jsonschema --quiet --schemafile "$$module/docs-v2/content/en/schemas/$$(sed -n 's,^apiVersion: skaffold/,,p' skaffold.yaml).json" skaffold.yaml

.PHONY: check-advisories
check-advisories: $(LINTERS)/.synced ## Known vulnerabilities of what is locked (asks PyPI)
	@$(BIN)/uv export --frozen --all-packages --no-emit-workspace --format requirements-txt --quiet > $(LINTERS)/locked.txt
	@$(LINT)/pip-audit --disable-pip --require-hashes --requirement $(LINTERS)/locked.txt --progress-spinner off --strict

# A test that hangs ends its process, which tells where; the longest takes a minute on a quiet machine.
ENDS := -o faulthandler_timeout=480 -o faulthandler_exit_on_timeout=true

.PHONY: test
test: setup ## Unit, adapter, service, isolation and end-to-end tests (at most 10 minutes); ARGS go to pytest
	@$(RUN) -m pytest -m 'not real and not cluster and not docker' --numprocesses=$(TEST_WORKERS) --dist=loadfile --max-worker-restart=0 $(ENDS) $(ARGS)

.PHONY: test-real
test-real: setup ## What needs other ecosystems: Apache Kafka 4.1 (Java, Maven), PgBouncer, grpcurl (Go); ARGS go to pytest
	@$(RUN) -m pytest -m real $(ARGS)

.PHONY: test-containers
test-containers: setup ## A service's adapters on PostgreSQL in a container, where Docker runs; BASE_IMAGE=<image>
	@TLSY_TEST_POSTGRES_BASE_IMAGE=$(or $(BASE_IMAGE),debian:bookworm-slim) $(RUN) -m pytest -m 'not real' services/identity/tests/adapters $(ARGS)

.PHONY: test-images
test-images: setup ## Builds the images and runs the suite on them, locked down; needs Docker, starts one for root
	@.ci/with-docker $(RUN) -m pytest -m docker tests/images $(ARGS)

.PHONY: test-alone
test-alone: setup ## Each service's own tests with only its own dependencies; SERVICE=<name> for one
	@failed=0; for tests in $(wildcard services/$(or $(SERVICE),*)/tests); do \
	  service=$$(basename $$(dirname $$tests)); alone=build/alone/$$service; echo "--- $$service"; \
	  UV_PROJECT_ENVIRONMENT=$$alone $(BIN)/uv sync --package tlsy-$$service --frozen --compile-bytecode --quiet --python $(RUN) \
	  && $$alone/bin/python -m pytest -m 'not real' $(ENDS) $$tests $(ARGS) || failed=1; \
	done; exit $$failed

##@ Cluster (root, containerd, Go)

.PHONY: cluster-up cluster-down cluster-load cluster-shell test-cluster bench-cluster
cluster-up: setup ## Start Kubernetes on this machine, with two nodes (its first use builds it: minutes)
	@$(RUN) -m tests.cluster up

cluster-down: setup ## End it; nothing of it stays (FORCE=1: also while tests use it)
	@$(RUN) -m tests.cluster down $(if $(FORCE),--force)

cluster-load: setup ## Give its nodes images of `make images`: IMAGE=identity, or IMAGE="identity kafka"
	@$(RUN) -m tests.cluster load $(or $(IMAGE),$(error IMAGE is missing, such as IMAGE=identity))

cluster-shell: setup ## A shell with its kubectl; NODE=node-0 for one on a node
	@$(RUN) -m tests.cluster shell $(if $(NODE),--node $(NODE))

test-cluster: setup ## What needs a cluster, in the one that is up or (always under CI) in one of its own; ARGS go to pytest
	@$(RUN) -m pytest -m cluster tests/cluster $(ARGS)

bench-cluster: setup ## Seconds to build it and to start it, as one JSON line (COLD=1: builds it from nothing)
	@$(RUN) -m tests.cluster bench $(if $(COLD),--cold)

##@ Container images

.PHONY: images
images: setup ## Build all images, or ARGS="identity --output json"; as OCI layout with SBOMs in build/images
	@.ci/with-docker $(RUN) -m images $(ARGS)

##@ Demonstration

.PHONY: demo
demo: setup ## Start the suite, onboard tenants, show events become incidents (ONCE=1: unattended, ends by itself)
	@$(RUN) -m examples.demo $(if $(ONCE),--once)

.PHONY: demo-clean
demo-clean: setup ## Remove the demo's data
	@$(RUN) -m examples.demo --clean

##@ Environments

.PHONY: env-init env-edit env-show
env-init: ## Seal the settings of ENV (local, staging, prod) for RECIPIENT=<age1…,age1…>, by default this machine's key
	@.ci/env init '$(ENV)' '$(RECIPIENT)'

env-edit: ## Open the sealed settings of ENV in your EDITOR; the first time they are .env.example's
	@.ci/env edit '$(ENV)'

env-show: ## Print the sealed settings of ENV
	@.ci/env show '$(ENV)'

##@ Figures (each prints one JSON object as its last line)

.PHONY: bench-ingest bench-rules bench-incident bench-rls bench-provision bench-start bench-images
bench-ingest: setup ## Events per second through the pipeline, against raw inserts
bench-rules: setup ## Microseconds per event for 1, 20 and 200 rules, against hand-written Python
bench-incident: setup ## From an event to its incident at 5,000 events/s
bench-rls: setup ## What row-level security and the tenant context cost a query
bench-provision: setup ## Tenants per second in each isolation mode, and 1,000 of them
bench-start: setup ## How soon the suite is ready and what memory it takes

bench-images: setup ## MB of each image, and seconds from a container's start to ready
	@.ci/with-docker $(RUN) -m tests.bench.images $(ARGS)

bench-ingest bench-rules bench-incident bench-rls bench-provision bench-start:
	@$(RUN) -m tests.bench.$(@:bench-%=%) $(ARGS)
