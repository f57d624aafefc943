# Everything a fresh clone needs, on a machine with Python 3.10 or newer and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
QUICK := runs/quickstart
QUICK_TASKS := --env k=1 --env 'tasks=["RepeatFirstEasy","HigherLowerEasy","MineSweeperEasy"]'
QUICK_UPDATES ?= 1600
QUICK_ROLLOUTS ?= 20

.PHONY: help quickstart test check lint docs bench clean

help:
	@echo "make quickstart   install, train the reference agent on three games, evaluate it beside two policies, print scores"
	@echo "make test         install the development tools, lint, check types, run every test"
	@echo "make check        lint, types and the tests of what changed since main: under two minutes"
	@echo "make lint         ruff and mypy"
	@echo "make docs         the documentation, as docs/_build/html/index.html"
	@echo "make bench        speed beside the upstream packages"

quickstart: $(VENV)/installed
	$(BIN)/mtbench train MTPOPGym-v0 --preset quick $(QUICK_TASKS) updates=$(QUICK_UPDATES) \
		--out $(QUICK)/training/agent
	for policy in random oracle $(QUICK)/training/agent; do \
		$(BIN)/mtbench evaluate MTPOPGym-v0 --policy $$policy $(QUICK_TASKS) \
			--rollouts-per-task $(QUICK_ROLLOUTS) \
			--out $(QUICK)/$$(basename $$policy) || exit; \
	done
	$(BIN)/mtbench score $(QUICK)/random $(QUICK)/oracle $(QUICK)/agent

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal

check: lint
	$(BIN)/python -m tests.changed

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-dev
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/installed-dev
	$(BIN)/python -m pytest benchmarks -p no:xdist --benchmark-columns=min,median,rounds --benchmark-sort=name

clean:
	rm -rf $(VENV) runs

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[popgym,agents]"
	@touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt requirements-procgen.txt
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps -r requirements-procgen.txt
	@touch $@ $(VENV)/installed
