# Each of these makes .venv first if it is not there. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-all fuzz docs bench study study-images figures notebooks clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Run everything on a simulated cohort and say where the report is
	$(BIN)/normfuse demo --out out/ --overwrite

# One torch thread a process (tests/conftest.py): two processes with two threads each on two cores
# take four times as long. Tests of a file share what they fitted, so a file stays in one process.
test test-all: $(INSTALLED)
	$(BIN)/flake8
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile $(if $(filter test,$@),-m "not slow")

test: ## Style, import contracts, types, tests and doctests, the slow ones left out
test-all: ## The same with them: notebooks, demos, processes that are killed

# Every warning is an error. `make docs NOTEBOOKS=cache` also runs the notebooks, and shows what they
# draw; without it their pages have the code only.
docs: .venv/.docs ## These pages as HTML, offline: docs/_build/html/index.html
	NOTEBOOKS=$(or $(NOTEBOOKS),off) $(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

# ulimit: a refusal that came too late would be a MemoryError, not a machine that stands still.
fuzz: $(INSTALLED) ## Thousands of damaged and hostile files to every reader and the report: hours
	ulimit -v 12000000; NORMFUSE_FUZZ=$${NORMFUSE_FUZZ:-3000} $(BIN)/python -m pytest -n 2 \
	    --dist loadfile tests/test_fuzz_cohort.py tests/test_fuzz_results.py tests/test_fuzz_report.py

# Other packages live in environments of their own: their pins and ours need not agree.
bench: $(INSTALLED) .venv-pcn/.installed .venv-peers/.installed ## Speed and quality, beside others; needs ../shared
	set -e; for script in benchmarks/*.py; do echo "# $$script"; $(BIN)/python $$script; done

study: $(INSTALLED) ## Which fusion to use: hours; goes on where it stopped; then the tables of the guide
	$(BIN)/python benchmarks/study/run.py
	$(BIN)/python benchmarks/study/table.py

study-images: $(INSTALLED) ## Synthesis and segmentation beside rivals: hours; goes on where it stopped
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/images/study.py
	$(BIN)/python benchmarks/images/table.py

figures: $(INSTALLED) ## The pictures of docs/guide
	set -e; for script in docs/gallery/plot_*.py; do OMP_NUM_THREADS=1 $(BIN)/python $$script --out docs/guide/images; done

# They write beside themselves, so they run on a copy.
notebooks: $(INSTALLED) ## The notebooks at full settings, with outputs, as HTML in out/notebooks
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[notebooks]'
	mkdir -p out/notebooks && cp analyses/notebooks/*.ipynb out/notebooks
	set -e; for name in out/notebooks/*.ipynb; do OMP_NUM_THREADS=1 $(BIN)/jupyter nbconvert --to html --execute $$name; done

clean: ## Remove everything these commands made, .venv and out/ included
	rm -rf .venv .venv-pcn .venv-peers docs/_build docs/generated out build dist *.egg-info .mypy_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

.venv/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,docs]'
	touch $@

.venv-pcn/.installed: benchmarks/pcntoolkit_requirements.txt
.venv-peers/.installed: benchmarks/peers_requirements.txt

# Every package is named with its version, so pip has nothing to choose; some of the peers'
# own demands cannot be met by any set of versions (see benchmarks/README.md).
.venv-pcn/.installed .venv-peers/.installed:
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --no-deps -r $<
	touch $@
