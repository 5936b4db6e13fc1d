# Two commands: `make run` serves a complete coordinator on this machine, `make test` proves it.
# Both set themselves up from nothing but Python >= 3.11 (with venv) and make.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: run test check lock clean

run: $(STAMP)
	@exec $(BIN)/coordinator dev

test: $(STAMP) check
	$(BIN)/python -m pytest -n 4 --dist worksteal

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

$(STAMP): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer (with venv) is needed: none was found"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# Writes requirements.lock anew from the ranges in pyproject.toml.
lock:
	rm -rf .venv && $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade '.[test]' setuptools
	$(BIN)/python -m pip freeze --all --exclude coordinator --exclude pip > requirements.lock

clean:
	rm -rf .venv .coordinator build *.egg-info
