# Everything runs in an environment of its own; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check format bench sweep clean

help:
	@echo "make demo    train, compile, verify, run and draw the three demos into out/"
	@echo "make test    run the tests"
	@echo "make check   format, lint and types"
	@echo "make bench   time explained against plain models, as ratios, and how both grow"
	@echo "make sweep   compile every layer and model of Keras, write the README coverage (half an hour)"
	@echo "make clean   remove the environment and everything made"

$(READY): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "probegen needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadscope

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m bench --batch 1 8
	$(BIN)/python -m bench growth

sweep: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[sweep]'
	$(BIN)/python -m sweep all --large --readme README.md

clean:
	rm -rf $(VENV) out dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
