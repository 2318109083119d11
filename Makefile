# HQ-DM Bench. `make mini` on a machine with python3 (>= 3.11), pip and make does everything.
# The environment is built from requirements.lock; `make` knows when it is out of date.

PYTHON ?= python3
CORES  ?= 2
ARGS   ?=

VENV      := .venv
BOOTSTRAP := .venv-bootstrap
STAMP     := $(VENV)/.installed

# Workflow jobs call `hqdm-bench`, so the environment comes first on PATH. One thread a process:
# Snakemake runs CORES jobs side by side, and a fixed thread count keeps float sums reproducible.
ENV := env PATH="$(CURDIR)/$(VENV)/bin:$$PATH" \
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MKL_NUM_THREADS=1
SNAKEMAKE := $(ENV) $(VENV)/bin/snakemake

.DEFAULT_GOAL := help
.PHONY: help setup mini smoke differences plus tuning bench test lint lock clean distclean

help:  ## show this list
	@echo "usage: make TARGET [CORES=$(CORES)] [ARGS='more arguments'] [PYTHON=$(PYTHON)]"
	@sed -nE 's/^([a-z]+):.*## (.*)/  \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
		|| sed -nE 's/^([a-z]+):.*## (.*)/  \1  \2/p' Makefile
	@echo "the paper's full suite (GPU, network): snakemake --cores 8 all, inside the environment"

setup: $(STAMP)  ## create or update .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml tools/setup_env.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo missing)."; \
		echo "Install one and name it: make setup PYTHON=/path/to/python3.11"; exit 1; } >&2
	$(PYTHON) tools/setup_env.py --venv $(VENV) --bootstrap $(BOOTSTRAP)
	@touch $@

mini: $(STAMP)  ## tables and figures at reduced counts on the embedded models (2 CPU cores, offline)
	$(SNAKEMAKE) --cores $(CORES) $(ARGS) mini

smoke: $(STAMP)  ## the same workflow at toy counts, minutes
	$(SNAKEMAKE) --cores $(CORES) $(ARGS) smoke

differences: $(STAMP)  ## what each difference between the paper's text and its code does; synthetic outliers (an hour)
	$(SNAKEMAKE) --cores $(CORES) $(ARGS) differences outliers

plus: $(STAMP)  ## hqdm-plus against both methods: three models, five seeds (an hour and a half)
	$(SNAKEMAKE) --cores $(CORES) $(ARGS) plus

tuning: $(STAMP)  ## candidates of hqdm-plus on trajectories of their own, noise error only (ten minutes)
	$(SNAKEMAKE) --cores $(CORES) $(ARGS) tuning

bench: $(STAMP)  ## integer execution against float32, bfloat16 and fake quantization at full size (ten minutes)
	mkdir -p results/bench
	$(ENV) $(VENV)/bin/python benchmarks/integer.py --output results/bench/integer.json $(ARGS)
	$(ENV) $(VENV)/bin/python benchmarks/integer_plot.py results/bench/integer.json figures/bench/integer

test: $(STAMP)  ## fast tests (more: make test ARGS="-m slow")
	$(ENV) $(VENV)/bin/pytest $(ARGS)

lint: $(STAMP)  ## ruff, mypy, snakefmt and Snakemake's own linter
	$(ENV) ruff check .
	$(ENV) ruff format --check .
	$(ENV) mypy
	$(ENV) snakefmt --check Snakefile workflow
	$(SNAKEMAKE) --lint

lock: $(STAMP)  ## refresh requirements.lock and environment.yml (newest versions: ARGS=--upgrade)
	$(ENV) uv pip compile pyproject.toml tools/requirements-build.in \
		--constraints tools/constraints.in --extra dev --extra cluster --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--quiet $(ARGS) -o requirements.lock
	$(ENV) python tools/environment_from_lock.py

# results/paper (GPU-days), results/published and figures/published are never removed here, nor is
# .snakemake, which remembers what made them.
clean:  ## remove the outputs of every suite but paper, and caches
	-find results figures -mindepth 1 -maxdepth 1 ! -name published ! -name paper -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find src tests tools workflow -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## also remove the environment
	rm -rf $(VENV) $(BOOTSTRAP)
