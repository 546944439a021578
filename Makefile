# Everything runs in .venv, made at the first call; python3 (3.9 or newer) and make are all that is assumed.
#
#   make demo                                click a phantom, write demo-output/
#   make demo IMAGE=ct.nii.gz POINT="r a s"  click a volume of yours (RAS, millimetres)
#   make smoke                               train, stop, resume, export, evaluate: runs/smoke/
#   make test                                both headless test layers
#
# PYTHON=python3.11    the interpreter to make .venv with
# TORCH_INDEX=         empty: torch as pip finds it (on Linux that is the CUDA build)
# PYTEST_ARGS="-k io"  passed on to pytest

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PYTEST_ARGS ?=
BENCH_ARGS ?=
IMAGE ?=
POINT ?=
DEMO_ARGS ?=

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
TESTS := SAMUSegment/Testing/Python

.PHONY: help venv demo smoke test test-core test-mrml lint format bench clean

help:
	@echo "Targets: demo smoke test test-core test-mrml lint format bench venv clean (see the top of the Makefile)"

# A stamp per set of extras: a second call installs nothing and needs no network.
$(VENV)/.installed-demo: EXTRAS := demo
$(VENV)/.installed-dev: EXTRAS := dev,slicer
$(VENV)/.installed-lint: EXTRAS := lint
$(VENV)/.installed-%: pyproject.toml constraints-dev.txt tools/environment.py
	@$(PYTHON) tools/environment.py --venv "$(VENV)" --install $(EXTRAS) --torch-index "$(TORCH_INDEX)" --stamp $@

venv: $(VENV)/.installed-dev

demo: $(VENV)/.installed-demo
	@$(BIN)/python -m samu_core.cli demo $(if $(IMAGE),"$(IMAGE)") $(if $(POINT),--point $(POINT)) $(DEMO_ARGS)

# The whole chain from generated data to an evaluation, in a few minutes.
smoke: $(VENV)/.installed-dev
	$(BIN)/python -m samu_core.cli train --config configs/smoke.yaml

test: test-core test-mrml

test-core: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(TESTS)/core $(PYTEST_ARGS)

test-mrml: $(VENV)/.installed-dev
	@reason="$$($(BIN)/python tools/environment.py --mrml-reason)"; \
	if [ -n "$$reason" ]; then echo "The MRML test layer was NOT RUN: $$reason."; \
	else $(BIN)/python -m pytest $(TESTS)/mrml $(PYTEST_ARGS); fi

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-demo
	$(BIN)/python benchmarks/engines.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/click.py
	$(BIN)/python benchmarks/processes.py --edges 64,128,256,512
	@reason="$$($(BIN)/python tools/environment.py --mrml-reason)"; \
	if [ -n "$$reason" ]; then echo "The whole click was NOT MEASURED: $$reason."; \
	else $(BIN)/python benchmarks/whole_click.py; fi

clean:
	rm -rf "$(VENV)" build dist demo-output samu_core.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
