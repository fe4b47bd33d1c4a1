# make demo | test | lint | format: each sets up what it needs; nothing but Python 3.11+ and make has to be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test lint format
demo: $(VENV)/installed
	$(BIN)/bench run --family deit3 --sizes base,large --work .bench --results .bench/demo/results --reports .bench/demo/reports

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
