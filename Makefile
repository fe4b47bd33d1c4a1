# make demo | test | test-long | test-page | test-slurm | lint | format: each sets up what it needs; nothing but Python 3.11+ and make has to be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test test-long test-page test-slurm lint format
demo: $(VENV)/installed
	$(BIN)/bench run --family deit3 --sizes base,large --work .bench --results .bench/demo/results --reports .bench/demo/reports

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not long" tests --ignore tests/slurm --ignore tests/page

test-long: $(VENV)/installed
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m long tests --ignore tests/slurm --ignore tests/page

# The page in a real Chromium and the tables in a real LaTeX, from Debian's packages where they may be installed; else skipped.
test-page: $(VENV)/installed
	@if $(BIN)/python -m tests.packages page; \
	then $(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/page; \
	else code=$$?; [ $$code -eq 3 ] && echo "make test-page: SKIPPED, for the reason above" || exit $$code; fi

# On a real Slurm, which is started for it: from Debian's packages, installed where that may be done; else skipped, with the reason.
test-slurm: $(VENV)/installed
	@if $(BIN)/python -m tests.slurm.lab install; \
	then $(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/slurm; \
	else code=$$?; [ $$code -eq 3 ] && echo "make test-slurm: SKIPPED, for the reason above" || exit $$code; fi

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
