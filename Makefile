# make demo        set everything up, then train two methods on the built-in faces and report on them
# make test        set everything up, then lint, type-check and run all tests, and print the coverage
# make test-fast   the tests that need no training, browser, LaTeX or server
# make bench       measure what the harness costs beside a bare training loop
# make docs        write docs/methods-list.md from the cards of the methods
#
# make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu   take PyTorch from another index: here, without CUDA
# make setup CONSTRAINTS=constraints-oldest.txt                 the oldest supported versions; empty: the newest

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
TORCH_INDEX ?=
BIN := .venv/bin
SETUP := .venv/.installed
TYPES := build/types# the package as it is installed, so that the types of all four folders are checked
COVERAGE := build/coverage
MERGE = $(BIN)/python -m slipcover --merge $(COVERAGE)/*.json
PYTEST := $(BIN)/pytest --numprocesses 2 --dist worksteal

.PHONY: setup demo test test-fast coverage lint bench docs dist clean

setup: $(SETUP)

$(SETUP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(addprefix --constraint ,$(CONSTRAINTS)) \
	    $(addprefix --extra-index-url ,$(TORCH_INDEX)) --editable '.[dev]'
	touch $(SETUP)

demo: setup
	$(BIN)/fer-bench run rasn baseline_focal --dataset synthetic --recipe brief --precision auto --seeds 2 --name demo --home demo
	$(BIN)/fer-bench list runs --home demo
	@echo "open demo/results/demo/report.md; start the MLflow UI with: $(BIN)/fer-bench ui --home demo"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(TYPES) && mkdir -p $(TYPES)/fer_bench
	ln -s $(CURDIR)/fer_bench/[a-z]* $(CURDIR)/fer_bench/__init__.py $(CURDIR)/methods $(CURDIR)/datasets $(CURDIR)/reports $(TYPES)/fer_bench
	cd $(TYPES) && MYPYPATH=$(CURDIR)/$(TYPES) $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml

test: lint
	rm -rf $(COVERAGE) && mkdir -p $(COVERAGE)
	FER_BENCH_COVERAGE=$(CURDIR)/$(COVERAGE) $(PYTEST)
	@$(BIN)/python -c "import slipcover" 2>/dev/null || { echo "coverage: not measured, SlipCover is not installed"; exit 0; }; \
	    $(MERGE) --json --out $(COVERAGE)/total >/dev/null && $(BIN)/python -c "import json; s = json.load(open('$(COVERAGE)/total'))['summary']; \
	    print('coverage:', s['percent_covered_display'], '% of', s['covered_lines'] + s['missing_lines'], 'lines, by file: make coverage')"

test-fast: setup
	$(PYTEST) -m "not slow"

coverage: setup
	@$(MERGE) --skip-covered --out $(COVERAGE)/by-file

bench: setup
	$(BIN)/python benchmarks/loop.py

docs: setup
	$(BIN)/python docs/make_methods_list.py

dist: setup
	rm -rf dist
	$(BIN)/python -m build

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
