# `make demo` and `make test` are the two commands of the README; `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
TEST_VENV ?= .venv-test
SECONDS_OF_DEMO ?= 20
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check
SOURCES = pyproject.toml $(shell find native labhub/notebook/frontend -type f -not -path '*/node_modules/*')

.PHONY: help demo test quick check format clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/.built  ## real sensors, a heartbeat and a camera-sized stream, live in this terminal
	$(VENV)/bin/labhub demo --seconds $(SECONDS_OF_DEMO)

test:  ## every test, notebooks included, in a fresh environment
	rm -rf $(TEST_VENV)
	$(PYTHON) -m venv $(TEST_VENV)
	$(TEST_VENV)/bin/python $(PIP_INSTALL) --editable '.[test]'
	$(TEST_VENV)/bin/python -m pytest
	PATH="$(CURDIR)/$(TEST_VENV)/bin:$$PATH" sh notebooks/check.sh

quick: $(VENV)/.built  ## the tests in the development environment, without those in a browser
	$(VENV)/bin/python -m pytest -x -q -m "not browser"

check: $(VENV)/.built  ## style, types and layers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

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
