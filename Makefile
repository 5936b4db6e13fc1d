# Two commands: `make run` serves a complete coordinator on this machine, `make test` proves it.
# Both set themselves up from nothing but Python >= 3.11 (with venv) and make.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/installed

TOOLS := .venv/tools
UV := uv==0.13.9
AUDIT := pip-audit==2.10.1
SBOM := cyclonedx-bom==7.5.0
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
COMPILE := $(TOOLS)/bin/uv pip compile pyproject.toml --universal --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --quiet --upgrade
PYTEST_OPTIONS ?=

.PHONY: run test check screenshots lock audit sbom clean

run: $(STAMP)
	@exec $(BIN)/coordinator dev

# The workers share what one of them has compiled: it is written, whatever the environment says.
test: $(STAMP) check
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 5 --dist worksteal $(PYTEST_OPTIONS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

# The lock is whole and has the hash of every file: nothing else is looked up or installed.
$(STAMP): pyproject.toml requirements-test.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer (with venv) is needed: none was found"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv ..."
	@$(PIP) --require-hashes --no-deps -r requirements-test.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# Writes both locks anew from the ranges in pyproject.toml: what production runs, and what tests
# need besides.
lock: $(TOOLS)/uv
	echo setuptools > $(TOOLS)/build.in
	$(COMPILE) $(TOOLS)/build.in -o requirements.lock
	$(COMPILE) $(TOOLS)/build.in --extra test -c requirements.lock -o requirements-test.lock

# Asks the advisory service of PyPI about every version that is locked.
audit: $(TOOLS)/audit
	@.ci/audit $(TOOLS)/bin/pip-audit requirements-test.lock

# What production runs, as CycloneDX.
sbom: $(TOOLS)/sbom
	@mkdir -p build
	$(TOOLS)/bin/cyclonedx-py requirements requirements.lock --output-reproducible -o build/sbom.cdx.json

$(TOOLS)/uv: TOOL = $(UV)
$(TOOLS)/audit: TOOL = $(AUDIT)
$(TOOLS)/sbom: TOOL = $(SBOM)
$(TOOLS)/%: | $(STAMP)
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check $(TOOL)
	@touch $@

# A picture of each page in screenshots/ (three of them in docs/screenshots/); needs a Chromium.
screenshots: $(STAMP)
	@$(BIN)/python -m tests.browser.screenshots

clean:
	rm -rf .venv .coordinator build *.egg-info
