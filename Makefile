# `make demo` and `make test` need Python 3.11 or newer, gcc and make; they install everything else
# into .venv. `make test PYTHON=python3.13` names the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock
# Test processes of the fast tests. One more than two cores, since many tests wait for servers.
WORKERS ?= 3
# Test processes of the slow tests, each with a Ray session of up to 3 GB.
SLOW_WORKERS ?= 2

.PHONY: demo test test-fast test-slow test-exhaustive check check-wheels docs stage-outputs lock clean

demo: $(VENV)/.installed-run
	$(BIN)/beit3 demo

test: check
	$(MAKE) test-fast
	$(MAKE) test-slow

# One file's tests share fixtures, hence stay in one process.
test-fast: $(VENV)/.installed-test
	$(BIN)/pytest -m "not slow and not exhaustive" -n $(WORKERS) --dist loadfile

# Many of these wait for processes that start, hence more than one at a time.
test-slow: $(VENV)/.installed-test
	$(BIN)/pytest -m "slow and not exhaustive" -n $(SLOW_WORKERS) --dist loadfile --durations 30

test-exhaustive: $(VENV)/.installed-test
	$(BIN)/pytest -m exhaustive

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

# Asks the package index whether every pinned package has a wheel for each supported Python.
check-wheels: $(VENV)/.installed-run
	$(BIN)/python .ci/check_wheels.py

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"$(PYTHON) is Python " + sys.version.split()[0] + "; name Python 3.11 or newer, for example: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

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

# Runs small workflows, in some minutes, and records what each stage puts out; see CONTRIBUTING.md.
stage-outputs: $(VENV)/.installed-test
	$(BIN)/pytest tests/end_to_end/test_demo.py tests/end_to_end/test_shrink.py \
		-k "recorded or shrunk" --record-stage-outputs

# Writes the versions that are installed now; what torch pins itself is left to torch.
lock: $(VENV)/.installed-test
	$(BIN)/pip freeze --exclude-editable | grep -Eiv '^(nvidia-|cuda-|triton|beit3)' > requirements.lock

clean:
	rm -rf $(VENV) runs
