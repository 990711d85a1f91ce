# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder
STAMP := $(VENV)/.installed
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
export HF_HUB_OFFLINE ?= 0
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test test-full check fix docs bench bench-gpu clean
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## enhance a real model and show both answers
	$(BIN)/burnish enhance smollm2-135m --domain creative-writing -o demo/model --overwrite
	$(BIN)/burnish chat smollm2-135m --with demo/model --compare --tokens 48 \
	  --prompt "Describe an old lighthouse at dusk." --prompt "What is photosynthesis?"
	@echo "What changed and what it cost: demo/model/burnish/page.html"

test: $(STAMP)  ## every law, in a few minutes
	$(BIN)/burnish models pull smollm2-135m --gguf
	$(PYTEST)

test-full: $(STAMP)  ## every law in every architecture family, hundreds of kills, thousands of damaged files
	$(BIN)/burnish models pull smollm2-135m --gguf
	$(PYTEST) -m "full or not full" --hypothesis-profile patient

check: $(STAMP)  ## format, lint, names, types, import contracts, generated docs, the site of the docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python checks/names.py
	$(BIN)/python checks/docstrings.py
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate_cli.py --check
	$(BIN)/python docs/generate_compatibility.py --check
	$(BIN)/python docs/generate_results.py --check
	site=$$(mktemp -d) && $(SITE) --site-dir $$site; code=$$?; rm -rf $$site; exit $$code

fix: $(STAMP)  ## format, mend lint, regenerate docs
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_compatibility.py
	$(BIN)/python docs/generate_results.py

docs: $(STAMP)  ## the documentation as pages, in site/
	$(SITE) --site-dir site

bench: $(STAMP)  ## the tables in benchmarks/results
	$(BIN)/python benchmarks/finding.py
	$(BIN)/python benchmarks/baking.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/learning.py --null --baselines
	$(BIN)/python benchmarks/learning_cost.py
	$(BIN)/python benchmarks/comparison.py
	$(BIN)/python benchmarks/profiles.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/hybrid.py
	$(BIN)/python benchmarks/layerwise.py

bench-gpu: $(STAMP)  ## the same on one GPU, against its roofline
	$(BIN)/python benchmarks/gpu/run-all

clean:
	rm -rf $(VENV) .venv-peers demo dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
