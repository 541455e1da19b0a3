# Two commands: `make run` serves, `make test` proves. Both install what they need.

VENV := .venv
BIN := $(VENV)/bin
# The first Python of 3.11 to 3.13 that runs; set PYTHON to choose another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 \
  && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
FRONTEND := $(shell find frontend -type f -not -path '*/node_modules/*' -not -path '*/dist/*')

.PHONY: run test check frontend schema lock bench

run: $(VENV)/run.stamp frontend/dist/index.html
	@exec $(BIN)/python -m web serve --stop-with-parent

test: check
	@$(BIN)/python -m pytest

check: $(VENV)/test.stamp frontend/dist/index.html
	@$(BIN)/ruff format --check --quiet . || { echo "Run '$(BIN)/ruff format .'"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m web schema --check schema.graphql

schema: $(VENV)/run.stamp
	@$(BIN)/python -m web schema > schema.graphql.new && mv schema.graphql.new schema.graphql

frontend: frontend/dist/index.html

bench: $(VENV)/test.stamp
	@$(BIN)/python -m benchmarks.store

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Bargraph needs Python 3.11, 3.12 or 3.13"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements/run.txt | $(BIN)/python
	@echo "Installing Python packages ..."
	@$(PIP) install --require-hashes -r requirements/run.txt
	@touch $@

$(VENV)/test.stamp: requirements/test.txt $(VENV)/run.stamp
	@echo "Installing the packages of the tests ..."
	@$(PIP) install --require-hashes -r requirements/test.txt
	@touch $@

# Node from the machine where it is recent enough, else from PyPI.
frontend/dist/index.html: $(FRONTEND) | $(VENV)/run.stamp
	@echo "Building GraphiQL ..."
	@node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null \
	  && command -v npm >/dev/null || $(PIP) install -r requirements/node.txt
	@cd frontend && export PATH="$(abspath $(BIN)):$$PATH" && npm ci --silent && npm run --silent build
	@touch $@

# Needs uv; writes the locks for every supported Python and platform, without index addresses.
lock:
	@uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --generate-hashes \
	  --custom-compile-command "make lock" pyproject.toml -o requirements/run.txt
	@uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --generate-hashes \
	  --custom-compile-command "make lock" --group dev pyproject.toml -c requirements/run.txt \
	  -o requirements/test.txt
