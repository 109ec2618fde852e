# Two commands: `make demo` runs the story and serves; `make test` runs every check. Both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?= demo-data
.PHONY: demo test check lock bench clean

demo: $(READY)
	$(BIN)/onbehalf demo --data $(DATA) $(ARGS)

test: check
	$(BIN)/python -m pytest -n 4 --dist loadgroup

check: $(READY)
	$(BIN)/ruff format --check src tests examples
	$(BIN)/ruff check src tests examples
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

lock:
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --allow-unsafe --generate-hashes --no-emit-find-links --no-emit-index-url --extra dev --strip-extras -o requirements.lock pyproject.toml

bench: $(READY)
	$(BIN)/python bench/run.py

clean:
	rm -rf $(VENV) $(DATA)
