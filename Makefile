# Everything a fresh Debian needs beyond python3 >= 3.11 is set up here: `make demo` and `make test` work from a clean clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test lint types parity clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs Python 3.11 or newer"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2>/dev/null \
		|| { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; } \
		|| { echo "cannot make a virtual environment: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[train,heads,app,dev]'
	@touch $@

demo: setup
	$(BIN)/rtgaze demo -o demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parity: setup
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[parity]'
	$(BIN)/python -m pytest -m parity tests/parity

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache demo
