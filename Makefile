# make demo | studies | docs | test | test-long | test-page | test-slurm | gpu | lint | format
# Each target sets up its own environment. Requires Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo studies docs test test-long test-page test-slurm gpu lint format
demo: $(VENV)/installed
	$(BIN)/bench run --family deit3 --sizes base --work .bench --results .bench/demo/results --reports .bench/demo/reports

# Train what is committed on mini from scratch, into .bench/studies (docs/studies.md: what and how long).
# Results equal the committed ones on equal hardware and versions.
AGAIN = $(BIN)/bench run --work .bench/studies --results .bench/studies/results --reports .bench/studies/reports
studies: $(VENV)/installed
	$(AGAIN) --study main --family augreg,beitv2,clip,deit,deit3,dino,dinov2,dinov2_reg,ibot,mae,mocov3 --seeds 0,1,2,3,4
	$(AGAIN) --study nulls --family deit,dinov2_reg --sizes base --seeds 0,1,2,3,4
	$(AGAIN) --study init --family beitv2,deit3 --sizes base,large --seeds 0,1,2,3,4
	$(AGAIN) --study components,starts,sinks,tuning,parts,budget,foreign,layers,losses,match,schedule \
		--family beitv2,dinov2_reg --sizes base --seeds 0,1,2,3,4
	$(AGAIN) --study cross --family deit,dinov2_reg --sizes base --seeds 0,1,2

# The documentation site, into .bench/site: mkdocs.yml, docs/. `.venv/bin/mkdocs serve` shows it while you write.
docs: $(VENV)/documented
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir .bench/site

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not long" tests --ignore tests/slurm --ignore tests/page --ignore tests/gpu

test-long: $(VENV)/developed
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m long tests --ignore tests/slurm --ignore tests/page --ignore tests/gpu

# The page in a real Chromium and the tables in a real LaTeX, from Debian's packages where they may be installed; else skipped.
test-page: $(VENV)/developed
	@if $(BIN)/python -m tests.packages page; \
	then $(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/page; \
	else code=$$?; [ $$code -eq 3 ] && echo "make test-page: SKIPPED, for the reason above" || exit $$code; fi

# On a real Slurm, which is started for it: from Debian's packages, installed where that may be done; else skipped, with the reason.
# Three at a time: these tests mostly wait.
test-slurm: $(VENV)/developed
	@if $(BIN)/python -m tests.slurm.lab install; \
	then $(BIN)/python -m pytest -n 3 --dist worksteal tests/slurm; \
	else code=$$?; [ $$code -eq 3 ] && echo "make test-slurm: SKIPPED, for the reason above" || exit $$code; fi

# On a GPU: exactness, batches and trainings; without one each test is skipped, with the reason.
gpu: $(VENV)/developed
	$(BIN)/python -m pytest -rs tests/gpu

lint: $(VENV)/developed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/developed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The package without development tools; tests, lint and format add these to the same environment.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/documented: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

$(VENV)/developed: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
