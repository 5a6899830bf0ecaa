# `make demo` and `make test` are the two commands of the README; `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
TEST_VENV ?= .venv-test
LOWEST_VENV ?= .venv-lowest
NEWEST_VENV ?= .venv-newest
SECONDS_OF_DEMO ?= 20
MINUTES ?= 20
ROUNDS ?= 20
UV_LOWEST = VIRTUAL_ENV=$(LOWEST_VENV) UV_RESOLUTION=lowest-direct $(LOWEST_VENV)/bin/uv
UV_NEWEST = VIRTUAL_ENV=$(NEWEST_VENV) $(NEWEST_VENV)/bin/uv
# An old package warns of what a newer one, which comes with it, will no longer have.
OLD_WARNINGS = -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning -W ignore::FutureWarning
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check
SOURCES = pyproject.toml $(shell find native labhub/notebook/frontend -type f -not -path '*/node_modules/*')

.PHONY: help demo test test-lowest test-newest quick torture check docs doctest verify bench bench-core instructions format clean

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

# Both install the extra "versions" only, so that no other package holds one of these back.
test-lowest:  ## tests of what depends on versions, with the lowest that pyproject.toml admits (5 minutes)
	rm -rf $(LOWEST_VENV) build/lowest
	mkdir -p build/lowest
	$(PYTHON) -m venv $(LOWEST_VENV)
	$(LOWEST_VENV)/bin/python $(PIP_INSTALL) uv
	$(LOWEST_VENV)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	    >build/lowest/requires.in
	$(UV_LOWEST) pip compile --quiet --output-file build/lowest/requires.txt build/lowest/requires.in
	$(UV_LOWEST) pip install --quiet --build-constraints build/lowest/requires.txt \
	    --config-setting build-dir=build/lowest/native --editable '.[versions]'
	$(LOWEST_VENV)/bin/python -m pytest -q -m versions $(OLD_WARNINGS)

test-newest:  ## the same tests with the newest versions; each warning is an error (5 minutes)
	rm -rf $(NEWEST_VENV) build/newest
	$(PYTHON) -m venv $(NEWEST_VENV)
	$(NEWEST_VENV)/bin/python $(PIP_INSTALL) uv
	$(UV_NEWEST) pip install --quiet --config-setting build-dir=build/newest --editable '.[versions]'
	$(NEWEST_VENV)/bin/python -m pytest -q -m versions

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
	rm -rf $(VENV) $(TEST_VENV) $(LOWEST_VENV) $(NEWEST_VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
