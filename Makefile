# `make demo` and `make test` are the two commands of the README; `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
TEST_VENV ?= .venv-test
SECONDS_OF_DEMO ?= 20
MINUTES ?= 20
ROUNDS ?= 20
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check
SOURCES = pyproject.toml $(shell find native labhub/notebook/frontend -type f -not -path '*/node_modules/*')

.PHONY: help demo test quick torture check docs doctest verify bench bench-core instructions format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.built  ## real sensors, a heartbeat and a camera-sized stream, live in this terminal
	$(VENV)/bin/labhub demo --seconds $(SECONDS_OF_DEMO) $(DEMO_FLAGS)

test:  ## every test, notebooks included, in a fresh environment
	rm -rf $(TEST_VENV)
	$(PYTHON) -m venv $(TEST_VENV)
	$(TEST_VENV)/bin/python $(PIP_INSTALL) --editable '.[test]'
	$(TEST_VENV)/bin/python -m pytest
	PATH="$(CURDIR)/$(TEST_VENV)/bin:$$PATH" sh notebooks/check.sh

quick: $(VENV)/.built  ## the tests in the development environment, without those in a browser
	$(VENV)/bin/python -m pytest -x -q -m "not browser"

torture: $(VENV)/.built  ## every fault of docs/reliability.md, over and over for MINUTES, with a table at the end
	mkdir -p build
	LABHUB_TORTURE_MINUTES=$(MINUTES) LABHUB_TORTURE_TABLE=build/torture.md $(VENV)/bin/python -m pytest -q tests/faults

check: $(VENV)/.built  ## style, types, layers, and the stub of the compiled core
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m labhub.testing.stub

docs: doctest  ## the documentation site in build/site, its notebooks executed (3 minutes)
	rm -rf build/site
	$(VENV)/bin/python -m sphinx -q -W --keep-going -E -c docs -d build/doctrees . build/site

doctest: $(VENV)/.built  ## the examples in docstrings and how-to pages
	$(VENV)/bin/python -m pytest -q -p tests.examples --doctest-modules labhub --doctest-glob='*.md' docs/howto

bench: $(VENV)/.built  ## labhub, its peers and the limits of this machine, side by side (20 minutes)
	$(VENV)/bin/python $(PIP_INSTALL) --editable '.[bench]'
	PYTHONPATH=benchmarks $(VENV)/bin/python -m bench --rounds $(ROUNDS) --chart docs/images/performance.png $(BENCH_FLAGS)

bench-core: $(VENV)/.built  ## what a slot costs in Python, a scan in instructions, a discovery in milliseconds
	for name in per_slot scan discovery; do $(VENV)/bin/python benchmarks/$$name.py || exit 1; done

instructions: $(VENV)/.built  ## whether a hot call takes a tenth more instructions than recorded (apt-get install valgrind)
	$(VENV)/bin/python benchmarks/instructions.py --check

verify: $(VENV)/.built  ## models, weak-memory simulation, sanitizers and fuzzing, with every sown fault found (5 minutes)
	$(VENV)/bin/python -m verification.run $(VERIFY_FLAGS)

format: $(VENV)/.built  ## rewrite the sources in the house format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Editable, so that Python finds the compiled core from the checkout as well; rebuilt when the native sources change.
$(VENV)/.built: $(SOURCES)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --editable '.[dev]'
	touch $@

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(TEST_VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
