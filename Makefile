# `make` alone lists the targets. Needs Python 3.11 or newer, git and make; .ci/setup-debian sees to the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .cache/peers
# The locks name everything: resolving again could only pick something else.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps
PYTEST := $(BIN)/python -m pytest
# Images often set it. Every process of the tests, of which there are hundreds, would then compile all it imports.
unexport PYTHONDONTWRITEBYTECODE
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" pyproject.toml
heading = @printf '\n==> %s\n' "$(1)"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint types imports chart unit fetch integration format lock bench chaos soak faults alerts fuzz clean machine

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf '  make %-12s %s\n' "$$target" "$$text"; done

demo: $(VENV)/.runtime ## see it work, everything embedded (ARGS="--faults" breaks things on the way)
	$(BIN)/genesys-consumer demo $(ARGS)

test: cover := --cov --cov-report=term
test: machine lint types imports chart unit integration ## everything CI checks

lint: $(VENV)/.dev ## ruff: rules and format
	$(call heading,Lint)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy, strict
	$(call heading,Types)
	$(BIN)/mypy

imports: $(VENV)/.dev ## import-linter: who may import whom
	$(call heading,Imports)
	$(BIN)/lint-imports

chart: $(VENV)/.dev ## tests of the Helm chart
	$(call heading,Chart tests)
	$(PYTEST) -m helm $(ARGS)

alerts: $(VENV)/.dev ## the chart's alerts, played through Prometheus' promtool, which Go builds the first time
	$(call heading,Alerts)
	$(PYTEST) tests/alerts $(ARGS)

unit: $(VENV)/.dev ## quick tests only: no process outside
	$(call heading,Unit tests)
	$(PYTEST) tests/unit -m "not helm" --numprocesses auto $(cover) $(ARGS)

fetch: $(VENV)/.dev ## what tests with real parts need of Maven, which takes minutes the first time
	$(call heading,Real parts)
	$(BIN)/python -m tests.fetch

integration: fetch ## tests with real parts, Apache Kafka among them
	$(call heading,Integration tests)
	$(PYTEST) tests/integration -m "not helm" --numprocesses 4 --dist worksteal $(ARGS)

format: $(VENV)/.dev ## rewrite the code as ruff wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev ## requirements/*.txt from pyproject.toml (ARGS="--upgrade" for newer versions)
	$(LOCK) $(ARGS) --group build --group dev -o requirements/dev.txt
	$(LOCK) $(ARGS) -c requirements/dev.txt -o requirements/runtime.txt
	$(subst pyproject.toml,,$(LOCK)) $(ARGS) --group build -c requirements/dev.txt -o requirements/build.txt
	$(subst pyproject.toml,,$(LOCK)) $(ARGS) --group peers -o requirements/peers.txt

bench: $(VENV)/.dev $(PEERS)/.installed ## benchmarks, beside three stream libraries: an hour
	$(BIN)/python -m bench $(ARGS)

chaos: $(VENV)/.dev ## 200 rounds of kills, broken networks and full disks on three brokers: fifty minutes
	$(BIN)/python -m tests.chaos --json bench/chaos.json $(ARGS)

soak: $(VENV)/.dev ## four hours of steady work, and whether anything grows (ARGS="--minutes 30": fewer)
	$(BIN)/python -m tests.soak --json bench/soak.json $(ARGS)

faults: $(VENV)/.dev ## 100,000 changes through a Genesys that fails in every way: six minutes
	$(BIN)/python -m tests.faults --json bench/faults.json $(ARGS)

fuzz: $(VENV)/.dev ## ten million inputs for framing, guard, decoder and envelopes (ARGS="--inputs 100000": fewer)
	$(BIN)/python -m tests.fuzz $(ARGS)

clean: ## remove reports, builds and caches; .venv and .cache stay
	rm -rf .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Where it may install nothing it names what is lacking; the tests that need it then skip, save in CI.
machine:
	$(call heading,Machine)
	.ci/setup-debian java maven go chromium || test "$$CI" != true

$(BIN)/python:
	PYTHON=$(PYTHON) .ci/setup-debian python
	$(PYTHON) -m venv $(VENV)

$(VENV)/pyvenv.cfg: | $(BIN)/python ;

$(VENV)/.runtime: pyproject.toml requirements/build.txt requirements/runtime.txt | $(BIN)/python
	$(PIP) --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

# The peers' versions do not go with ours: an environment of their own, of the Python of ours, made anew when that is.
$(PEERS)/.installed: requirements/peers.txt $(VENV)/pyvenv.cfg | $(VENV)/.dev
	$(BIN)/python -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes -r $<
	@touch $@
