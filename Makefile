# `make demo` and `make test` set up everything they need; only Python >= 3.11 and make must be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test check lint types imports bench soak clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "neuronaut needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about 2 GB on disk, some minutes the first time" >&2
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/neuronaut ask "what does neuron 8.481 do" --notebook .demo/notebook.db

test: setup
	$(BIN)/python -m pytest -n auto --dist worksteal

check: lint types imports test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy -p neuronaut

imports: setup
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m neuronaut.evals.speed

soak: setup
	$(BIN)/python -m neuronaut.evals.soak --out docs/soak.md

clean:
	rm -rf $(VENV) .demo build src/*.egg-info
