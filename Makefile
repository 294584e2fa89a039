# The two commands of the README are `make book` and `make test`; `make help` lists the rest.
VENV ?= .venv
PYTHON ?= python3
TORCH_INDEX ?=
PORT ?= 8000
JOBS ?= 2
# STRICT=1: a result that comes out differently stops the build, as where the book is published; tests are always strict
STRICT ?=
BIN = $(VENV)/bin
SITE = _build/html
PAGES = chapters appendix
# one BLAS thread a process: notebooks and tests run side by side
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export LORA_COURSE_STRICT = $(STRICT)
test test-all quick unit notebooks second browser colab oldest fuzz: export LORA_COURSE_STRICT = 1

.PHONY: help book site serve test test-begins quick test-all lint unit notebooks second browser colab oldest fuzz bench replicate freeze clean
help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + " (choose one with PYTHON=...)")'
	@echo "== environment in $(VENV) (once; about 2 GB on disk)"
	$(PYTHON) -m venv $(VENV)
	@# torch alone: another index may lack the frozen versions of what it needs, which the next line brings
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep '^torch==' requirements.txt)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt -c constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps -e .
	@touch $@

book: $(VENV)/.installed site  ## execute the notebooks, build the site (STRICT=1: stop where a result differs)
	@$(BIN)/python tools/execute_notebooks.py --differences
	@echo "== the book is built: open $(CURDIR)/$(SITE)/index.html, or run 'make serve'"

site: $(VENV)/.installed
	@echo "== notebooks (side by side, into the cache)"
	$(BIN)/python tools/execute_notebooks.py --jobs $(JOBS)
	@echo "== site (warnings are errors)"
	$(BIN)/jupyter-book build . -W --keep-going -q

serve: book  ## show the book on localhost
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

test: $(VENV)/.installed test-begins lint unit notebooks second site browser  ## everything that a change must pass
	@seconds=$$(( $$(date +%s) - $$(cat _build/test_begins) )) && echo $$seconds > _build/test_seconds && echo "== all passed in $$seconds s"

test-begins: $(VENV)/.installed
	@mkdir -p _build && date +%s > _build/test_begins

quick: $(VENV)/.installed lint  ## linting and unit tests: no browser, no notebooks, no PEFT; some minutes
	$(BIN)/python -m pytest -q tests --ignore=tests/parity --ignore=tests/site -n $(JOBS)

test-all: test colab oldest fuzz  ## also what is too long for every change

lint: $(VENV)/.installed
	@echo "== lint"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python tools/clean_notebooks.py --check $(PAGES)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows

unit: $(VENV)/.installed
	@echo "== unit and parity tests"
	$(BIN)/python -m pytest -q tests --ignore=tests/site -n $(JOBS)

notebooks: $(VENV)/.installed
	@echo "== every notebook executes (nbval)"
	@# -p: outputs are kept for the site, and what the sliders draw for its tests; else each would run again
	$(BIN)/python -m pytest -q -p tests.kept_runs --nbval-lax --nbval-current-env --nbval-cell-timeout 120 -n $(JOBS) $(PAGES)

second: $(VENV)/.installed
	@echo "== two notebooks, another pair each day, in a second arithmetic"
	$(BIN)/python tools/replicate.py --second --jobs $(JOBS)

browser: $(VENV)/.installed
	@echo "== the built site in a real browser"
	$(BIN)/python -m pytest -q -rs -n $(JOBS) --dist loadgroup tests/site

colab: $(VENV)/.installed  ## the notebooks under Colab's package versions
	$(BIN)/python -m tests.environments.run colab

oldest: $(VENV)/.installed  ## the tests under the lower bounds of pyproject.toml
	$(BIN)/python -m tests.environments.run oldest

fuzz: $(VENV)/.installed  ## 10,000 damaged adapter files, and the hypothesis tests with many more examples
	LORA_COURSE_FUZZ=10000 $(BIN)/python -m pytest -q tests/adapters tests/theory tests/book --hypothesis-profile long -n $(JOBS)

bench: $(VENV)/.installed site  ## ratios against peers, slider speed, page weight, build times
	$(BIN)/python -m benchmarks

replicate: $(VENV)/.installed  ## every notebook in 24 variants, what changed only: more than an hour, can be interrupted
	$(BIN)/python tools/replicate.py --jobs $(JOBS)

freeze: $(VENV)/.installed  ## write constraints.txt anew from the environment
	{ head -1 constraints.txt; $(BIN)/pip freeze --exclude-editable | grep -vi -E '^(torch==|lora)'; } > constraints.new
	mv constraints.new constraints.txt

clean:  ## remove what was built (the environment stays)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
