# CI and people call only these targets.
.DEFAULT_GOAL := help
SHELL := bash
UV_VERSION := 0.13.9
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
RUN := .venv/bin
ONCE ?=
EXAMPLES ?= 2000
JOBS ?= 3
GROWTH ?=
# Where this is set, each of the many Pythons of a run compiles all of Conman and its tests anew; setup compiles the libraries.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test thorough fuzz check lint types imports unit bench growth docs mail-pictures proto clean up servers

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/.ready ## Install the locked dependencies into .venv

.tools/bin/uv:
	@echo "installing uv $(UV_VERSION) into .tools"
	@$(PYTHON) -m venv .tools && .tools/bin/python -m pip install --quiet "uv==$(UV_VERSION)"

.venv/.ready: pyproject.toml uv.lock $(filter .tools/bin/uv,$(UV))
	@echo "installing the locked dependencies into .venv"
	@$(UV) sync --frozen --quiet --compile-bytecode
	@touch $@

demo: servers ## Run the main job on real files; ONCE=1 exits at the end
	@$(RUN)/python -m conman demo $(if $(ONCE),--once)

up: setup ## Run everything on this machine until Ctrl-C
	@$(RUN)/python -m conman up

servers: setup ## Find, fetch or build the local servers
	@$(RUN)/python -m conman.embedded

test: servers ## Run all tests, JOBS=N files side by side
	@$(RUN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --maxprocesses 8

thorough: export CONMAN_TESTS := thorough
thorough: ## As test, with each case and full size of the longest tests; about twice as long
	@$(MAKE) --no-print-directory test

unit: setup ## Run the tests that need no server
	@$(RUN)/python -m pytest tests/unit tests/git

fuzz: servers ## Search random Git histories for a difference, and random requests for a failure; EXAMPLES=N of each kind
	@FUZZ_EXAMPLES=$(EXAMPLES) $(RUN)/python -m pytest --hypothesis-profile=fuzz --timeout=0 tests/git/test_properties.py tests/api/test_openapi.py

lint: setup
	@$(RUN)/ruff check . && $(RUN)/ruff format --check .

types: setup
	@$(RUN)/pyright

imports: setup
	@$(RUN)/lint-imports --no-cache

check: lint types imports test ## Lint, types, layers and all tests

bench: servers ## Print the budgets beside the bare things that they stand on; GROWTH=1 as growth
	@$(RUN)/python -m tests.load.bench $(if $(GROWTH),--growth)

growth: ## Print how times grow with queues, releases and repositories; about a quarter of an hour
	@$(MAKE) --no-print-directory bench GROWTH=1

docs: setup ## Write the generated pages
	@$(RUN)/python -m conman.configuration > docs/configuration.md

mail-pictures: setup ## Draw the mails for docs/mails anew where their templates have changed; needs Pango
	@$(UV) run --quiet --isolated --frozen --group pictures python -m tests.mail.pictures

proto: setup ## Generate the Python of Gitaly's protocol
	@$(RUN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. conman/git/proto/gitaly.proto

clean: ## Remove what the targets made in this folder
	rm -rf .venv .tools .pytest_cache .ruff_cache .hypothesis data
