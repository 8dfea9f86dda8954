# make demo                 set up, then run the whole road on rendered films
# make demo FOOTAGE=DIR     the same on your own videos
# make test                 set up, then run the tests
# Needs Python 3.11 or newer (PYTHON=python3.12 to choose one). Uses uv when it is there, pip otherwise.

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-run
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint clean

setup: $(READY)

# scenedetect asks for opencv-python, which needs libGL; the headless build gives the same module without it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Reelmill needs Python 3.11 or newer, and $(PYTHON) is older or missing: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
		uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]' && \
		uv pip uninstall --quiet --python $(BIN)/python opencv-python opencv-python-headless && \
		uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt opencv-python-headless; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' && \
		$(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-python-headless && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt opencv-python-headless; \
	fi
	@$(BIN)/python -m compileall -q curate recaption model train pipelines
	@touch $@

demo: $(READY)
	@$(BIN)/python -m pipelines.demo --out "$(OUT)" $(if $(FOOTAGE),--footage "$(FOOTAGE)")

test: $(READY)
	@$(BIN)/python -m pytest

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy curate recaption model train pipelines

clean:
	rm -rf "$(VENV)" build *.egg-info .pytest_cache .mypy_cache .ruff_cache
