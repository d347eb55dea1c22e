# Each target does its own set-up: a fresh machine needs Python 3.11, pip and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# One more than there are cores: many tests wait for a daemon or a server most of the time.
WORKERS ?= $(shell expr `getconf _NPROCESSORS_ONLN` + 1)

# Modules are compiled once, not by each of the many processes that tests start.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help demo test test-oldest test-bi test-clients quick check lint types contracts docs bench soak format lock clean

help:
	@echo "make demo    mirror three sample projects and look at them, no account needed (about a minute)"
	@echo "make quick   lint, types, contracts, docs and the fastest tests"
	@echo "make test    all tests but the slow ones"
	@echo "make test-oldest    the tests of store, sync and queries with the oldest DuckDB that is taken"
	@echo "make test-bi    BI tools, dbt, Node, DuckDB 1.5, Daft, Sail, S3 and Azure against the mirror and its lake; needs Node"
	@echo "make test-clients    programs that others wrote for the official client, on the server and on the mirror"
	@echo "make check   lint, types, architecture contracts, docs"
	@echo "make bench   the benchmarks"
	@echo "make soak    the slow fault and soak tests"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(BIN)/python requirements.txt pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: $(VENV)/.runtime
	$(BIN)/mirror demo

# Rooms whose tests start no server and no process.
quick: check
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not soak" tests/config tests/filters tests/house tests/plot

# Tests open thousands of small databases, which takes a tenth less CPU time with jemalloc. `make test-oldest` and `make soak`
# keep the standard allocator, as users have it.
JEMALLOC := $(wildcard /usr/lib/$(shell uname -m)-linux-gnu/libjemalloc.so.2)

test: $(VENV)/.dev
	$(if $(JEMALLOC),LD_PRELOAD=$(JEMALLOC)) $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not soak and not bi and not clients"

# The other end of the range in pyproject.toml; its own environment, and the tests in which DuckDB has a part.
OLDEST := .cache/oldest
$(OLDEST)/.done: $(VENV)/.dev
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install -q --python $(OLDEST)/bin/python -r requirements-dev.txt
	$(BIN)/uv pip install -q --python $(OLDEST)/bin/python duckdb==1.5.3
	$(BIN)/uv pip install -q --python $(OLDEST)/bin/python --no-deps -e .
	@touch $@

test-oldest: $(OLDEST)/.done
	$(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist loadgroup --all-threads -m "not soak and not bi and not clients" tests/store tests/sync tests/query

# Tools that pin another DuckDB or bring engines or Node have environments of their own, made once.
BI := .cache/bi
$(BI)/.done: $(VENV)/.dev Makefile
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(BI)/sqlalchemy
	$(BIN)/uv pip install -q --python $(BI)/sqlalchemy/bin/python duckdb-sqlalchemy "sqlalchemy>=2.1"
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(BI)/dbt
	# dbt-core 1.12 takes a part of itself from outside the registry while it is installed.
	$(BIN)/uv pip install -q --python $(BI)/dbt/bin/python dbt-duckdb "dbt-core<1.12"
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(BI)/marimo
	$(BIN)/uv pip install -q --python $(BI)/marimo/bin/python marimo duckdb
	# Engines that read a lake. The package has the extension for one release of DuckDB, which it brings along.
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(BI)/duckdb
	$(BIN)/uv pip install -q --python $(BI)/duckdb/bin/python "duckdb-extension-delta==1.5.*"
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(BI)/daft
	$(BIN)/uv pip install -q --python $(BI)/daft/bin/python daft deltalake
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(BI)/sail
	$(BIN)/uv pip install -q --python $(BI)/sail/bin/python pysail pyspark-client "pandas<3"
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(BI)/moto
	$(BIN)/uv pip install -q --python $(BI)/moto/bin/python "moto[server,s3]"
	mkdir -p $(BI)/node
	npm install --silent --no-audit --no-fund --prefix $(BI)/node @duckdb/node-api azurite
	@touch $@

test-bi: $(BI)/.done
	$(BIN)/python -m pytest -m bi tests/bi

# Programs that others wrote for the official client; their versions are pinned so that a failure is ours.
CLIENTS := .cache/clients
WANDB := wandb==0.31.0
$(CLIENTS)/.done: $(VENV)/.dev Makefile
	for client in wandb-buddy==0.1.0 wandb-summarizer==0.1.2 wandb2numpy==0.1 wandb-to-mlflow==0.1.0; do \
	  home=$(CLIENTS)/$${client%%==*} && \
	  $(BIN)/uv venv -q --clear --python $(BIN)/python $$home && \
	  $(BIN)/uv pip install -q --python $$home/bin/python $$client $(WANDB) || exit 1; \
	done
	$(BIN)/uv pip install -q --python $(CLIENTS)/wandb-to-mlflow/bin/python mlflow==3.17.2
	# dr-wandb says that it needs Python 3.12, and runs on 3.11.
	$(PYTHON) -m venv --clear $(CLIENTS)/dr-wandb
	$(CLIENTS)/dr-wandb/bin/python -m pip install -q --disable-pip-version-check $(WANDB) pydantic "srsly>=2.5.3" "typer>=0.20" pandas pyarrow
	$(CLIENTS)/dr-wandb/bin/python -m pip install -q --disable-pip-version-check --no-deps --ignore-requires-python dr-wandb==3.0.3 dr-ds==0.1.4
	@touch $@

test-clients: $(CLIENTS)/.done
	$(BIN)/python -m pytest -m clients tests/clients

# The older DuckDB versions that read the published file.
READERS := .cache/readers
$(READERS)/.done: $(VENV)/.dev
	for version in 1.4 1.5; do \
	  $(BIN)/uv venv -q --clear --python $(BIN)/python $(READERS)/$$version && \
	  $(BIN)/uv pip install -q --python $(READERS)/$$version/bin/python "duckdb==$$version.*" || exit 1; \
	done
	@touch $@

soak: $(VENV)/.dev $(READERS)/.done
	$(BIN)/python -m pytest -m soak --timeout 3600

check: lint types contracts docs

lint: $(VENV)/.dev
	$(BIN)/ruff check --output-format concise
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy
	MYPYPATH=benchmarks:. $(BIN)/mypy --explicit-package-bases benchmarks/*.py

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/python docs/reference.py --check
	$(BIN)/python docs/rooms.py --check

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/sync.py
	$(BIN)/python benchmarks/filters.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/api.py
	$(BIN)/python benchmarks/publish.py
	$(BIN)/python benchmarks/files.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/query_api.py
	$(BIN)/python benchmarks/lake.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/rooms.py

lock: $(VENV)/.dev
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --custom-compile-command "make lock" pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --custom-compile-command "make lock" --group dev pyproject.toml -o requirements-dev.txt

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
