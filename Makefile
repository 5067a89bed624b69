# Everything runs in an environment of its own; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ONNX_ROWS := out/onnx_models/rows.json

.PHONY: help demo examples gallery test test-wide test-serving test-ray test-web check format docs peers bench bench-serve sweep sweep-onnx corpus runs-where mutants fuzz lock bom clean

help:
	@echo "make demo    train, compile, verify, run and draw the three demos into out/"
	@echo "make examples  train, compile, verify, run and draw six models of texts, series, sound and film"
	@echo "make gallery draw every method on an image, a text and a row of a table into out/gallery/"
	@echo "make test    run the tests"
	@echo "make test-wide  run those that take long (tests/wide.py)"
	@echo "make test-serving  run the tests that need KServe and Triton's schema"
	@echo "make test-web  run the tests of pages in Chromium (needs node, npm and Chromium)"
	@echo "make test-ray  run the tests of bulk runs on a Ray cluster of this machine (a minute)"
	@echo "make check   format, lint and types"
	@echo "make docs    write the tables of methods, draw each (some minutes), and the site into out/site/"
	@echo "make peers   compare methods with the libraries people use today, write docs/PEERS.md"
	@echo "make bench   time explained against plain models, as ratios, and how both grow"
	@echo "make bench-serve  load on probegen serve, over loopback (three minutes)"
	@echo "make sweep   compile every layer and model of Keras, write docs/COVERAGE.md (half an hour)"
	@echo "make sweep-onnx  compile ONNX files of torch, scikit-learn and others, write docs/COVERAGE.md (an hour or two)"
	@echo "make corpus  try the gradients of onnx's own cases of its operators, write docs/COVERAGE.md (5 minutes)"
	@echo "make runs-where  run artefacts in every runtime there is, write docs/RUNS_WHERE.md (half an hour)"
	@echo "make mutants  change modules at random, print what their tests do not notice (ten minutes)"
	@echo "make fuzz    random models, graphs, exports, artefacts: MINUTES=, SEED=, FUZZ=\"onnx\""
	@echo "make lock    the exact packages of the runtime with hashes, EXTRAS=serve of more: locks/ (two minutes)"
	@echo "make bom     bill of materials (CycloneDX) of what a lock installs, EXTRAS=serve of more (a minute)"
	@echo "make clean   remove the environment and everything made"

$(READY): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "probegen needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# What needs other packages, or other versions of them, than the rest has an environment of its own:
# PACKAGES, which stands at each, is what is installed into it.
.venv-%/.ready: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet $(PACKAGES)
	$(if $(WITHOUT_DEPENDENCIES),$(@D)/bin/python -m pip install --quiet --no-deps $(WITHOUT_DEPENDENCIES))
	touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

examples: $(READY)
	$(BIN)/python examples/all_examples.py

gallery: $(READY)
	$(BIN)/python examples/gallery.py

# A test that hangs fails after its time, in place of holding up all that come after it.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=15 --timeout 900

test: $(READY)
	$(PYTEST) -m "not wide"

test-wide: $(READY)
	$(PYTEST) -m wide

# KServe needs other versions of what serves than the rest.
.venv-kserve/.ready: PACKAGES := --editable '.[kserve,onnx]' pytest httpx 'tritonclient[grpc]>=2.60,<3'

# One process each: KServe and Triton's schema register the same protobuf messages.
test-serving: .venv-kserve/.ready
	.venv-kserve/bin/python -m pytest --noconftest tests/serve/test_kserve.py
	.venv-kserve/bin/python -m pytest --noconftest tests/serve/config/test_triton.py

.venv-ray/.ready: PACKAGES := --editable '.[ray,zarr,onnx]' pytest

test-ray: .venv-ray/.ready
	.venv-ray/bin/python -m pytest --noconftest tests/bulk/test_on_ray.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site: what writes it needs neither the compiler nor its tests.
.venv-docs/.ready: PACKAGES := --editable '.[docs]'

# One picture a method, drawn anew where a method or a plot has changed.
CATALOGUE := out/catalogue/.ready
$(CATALOGUE): $(READY) $(wildcard examples/*.py probegen/methods/*.py probegen/runtime/plot/*.py probegen/runtime/plot/plots/*.py)
	$(BIN)/python examples/catalogue.py
	touch $@

docs: $(READY) .venv-docs/.ready $(CATALOGUE)
	$(BIN)/python -m probegen.methods.documentation README.md docs/METHODS.md
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# The libraries that methods are compared with; some need other versions than the rest.
.venv-peers/.ready: PACKAGES := --editable '.[peers]'

# Quantus crashes where it finds torch and TensorFlow side by side, and the tests need the latter.
.venv-quantus/.ready: PACKAGES := --editable '.[quantus]'

peers: .venv-peers/.ready .venv-quantus/.ready
	.venv-peers/bin/python -m peers --page docs/PEERS.md
	.venv-quantus/bin/python -m pytest tests/runtime/metrics/test_quantus.py

bench: $(READY)
	$(BIN)/python -m bench --batch 1 8
	$(BIN)/python -m bench growth
	$(BIN)/python -m bench methods
	$(BIN)/python -m bench recurrent
	$(BIN)/python -m bench bulk

bench-serve: $(READY)
	$(BIN)/python -m bench serve

sweep: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[sweep]'
	$(BIN)/python -m sweep all --large --coverage docs/COVERAGE.md

# torch and what else writes ONNX files, without TensorFlow.
# On Linux the torch of PyPI links against CUDA's libraries and brings them: 5 GB of disk. Where pip
# is set up to find a CPU build, it is taken.
.venv-onnx/.ready: PACKAGES := --editable '.[sweep-onnx]'
.venv-onnx/.ready: WITHOUT_DEPENDENCIES := --requirement sweep/onnx_models/packages.txt
.venv-onnx/.ready: sweep/onnx_models/packages.txt

sweep-onnx: $(READY) .venv-onnx/.ready
	$(BIN)/python -m sweep.onnx_models --write compiler
	.venv-onnx/bin/python -m sweep.onnx_models --json $(ONNX_ROWS) --coverage docs/COVERAGE.md

corpus: $(READY)
	$(BIN)/python -m tests.graph.vjp.onnx_cases --coverage docs/COVERAGE.md

# The oldest onnxruntime that is supported; and what rewrites artefacts, with LiteRT.
.venv-where-oldest/.ready: PACKAGES := 'onnxruntime==1.20.0' 'numpy>=1.26,<3'

.venv-where/.ready: PACKAGES := --editable '.[runs-where]'

# onnxruntime for node and browsers; without scripts, which would fetch what is not used here.
NODE_READY := runs_where/javascript/node_modules/.ready
$(NODE_READY): runs_where/javascript/package.json
	cd runs_where/javascript && npm install --ignore-scripts --no-package-lock --no-audit --no-fund
	touch $@

# Needs node, npm and Chromium (Debian: nodejs, npm, chromium; CHROMIUM=PATH for another one).
runs-where: $(READY) .venv-where-oldest/.ready .venv-where/.ready $(NODE_READY)
	$(BIN)/python -m runs_where --page docs/RUNS_WHERE.md

# Needs what runs-where needs, and Playwright. Without Chromium most of its tests would be skipped.
test-web: $(READY) $(NODE_READY)
	@test -x "$${CHROMIUM:-/usr/bin/chromium}" || { echo "Chromium is not there: install it (Debian: chromium), or say where it is by CHROMIUM=PATH."; exit 1; }
	$(BIN)/python -m pip install --quiet --editable '.[web-tests]'
	$(BIN)/python -m pytest tests/web

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

# The exact versions of what is installed, with the hashes of their files, for the Python and system
# that this runs on: locks/runtime.txt, with EXTRAS=serve,onnx locks/serve-onnx.txt.
EXTRAS ?=
COMMA := ,
LOCK = locks/$(or $(subst $(COMMA),-,$(EXTRAS)),runtime).txt
.venv-bom/.ready: PACKAGES := 'cyclonedx-bom>=7,<8' 'pip-tools>=7.5,<8'

lock: .venv-bom/.ready
	mkdir -p locks
	.venv-bom/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--no-emit-options $(addprefix --extra ,$(subst $(COMMA), ,$(EXTRAS))) --output-file $(LOCK) pyproject.toml

# Of what that lock installs: licences and needs from the installed packages, hashes from the lock.
bom: .venv-bom/.ready
	test -f $(LOCK) || { echo "there is no $(LOCK): make lock EXTRAS=$(EXTRAS)"; exit 1; }
	mkdir -p out
	rm -rf out/bom
	$(PYTHON) -m venv --without-pip out/bom
	.venv-bom/bin/python -m pip --python out/bom install --quiet --no-deps --require-hashes --requirement $(LOCK)
	.venv-bom/bin/python -m pip --python out/bom install --quiet --no-deps .
	.venv-bom/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --mc-type library \
		--short-PURLs --output-file out/bom/environment.json out/bom
	.venv-bom/bin/cyclonedx-py requirements --output-reproducible --output-file out/bom/lock.json $(LOCK)
	$(PYTHON) bill_of_materials.py out/bom/environment.json out/bom/lock.json out/bom.cdx.json

clean:
	rm -rf $(VENV) $(addprefix .venv-,onnx kserve ray where-oldest where peers quantus bom docs) out dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf runs_where/javascript/node_modules
