# make demo   sets everything up, then trains two methods on the built-in faces and shows what comes of it
# make test   sets everything up, then lints, type-checks and tests

PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed
TYPES := build/types# the package as it is installed, so that the types of all four folders are checked

.PHONY: setup demo test lint bench clean

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
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
	$(BIN)/pytest --numprocesses 2 --dist worksteal

bench: setup
	$(BIN)/python benchmarks/loop.py

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
