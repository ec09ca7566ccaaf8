# `make demo` and `make test` need Python 3.11, gcc and make; they install everything else into .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock

.PHONY: demo test test-exhaustive check docs lock clean

demo: $(VENV)/.installed-run
	$(BIN)/beit3 demo

test: check
	$(BIN)/pytest

test-exhaustive: $(VENV)/.installed-test
	$(BIN)/pytest -m exhaustive

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)

$(VENV)/.installed-run: $(VENV)/bin/pip pyproject.toml requirements.lock
	$(PIP) --editable .
	touch $@

# torchscale, the reference that the network is tested against, asks for a timm of years ago.
$(VENV)/.installed-test: $(VENV)/.installed-run
	$(PIP) --editable ".[test,dev]"
	$(PIP) --no-deps torchscale==0.3.0
	touch $@

# Writes docs/recipe.md out of the parameter models.
docs: $(VENV)/.installed-test
	$(BIN)/python docs/make_recipe_page.py > docs/recipe.md

# Writes the versions that are installed now; what torch pins itself is left to torch.
lock: $(VENV)/.installed-test
	$(BIN)/pip freeze --exclude-editable | grep -Eiv '^(nvidia-|cuda-|triton|beit3)' > requirements.lock

clean:
	rm -rf $(VENV) runs
