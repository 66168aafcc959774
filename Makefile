# make demo    the whole chain on the embedded model, on a CPU, without a network
# make test    the tests            make lint   style, types, layers
# make hub     a Hub of this machine's own, in memory: to try `llmkit push` without an account or a network
# make docs    these pages as a site, in site/
# make base    the embedded base model anew, with what follows from it: half an hour and more
# make setup   the environment that all of these need (they call it)

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow lint bench base hub docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt torch
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(STAMP)

demo: $(STAMP)
	$(VENV)/bin/llmkit run recipes/tiny/assistant.yaml

# Two processes, a file of tests to each in turn: each takes a thread, so that they do not wait for one another.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	$(PYTHON) -m pytest -m "slow or not slow"

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy llmkit
	$(VENV)/bin/lint-imports

bench: $(STAMP)
	for file in benchmarks/*.py; do $(PYTHON) $$file || exit 1; done

base: $(STAMP)
	$(VENV)/bin/llmkit run recipes/tiny/base.yaml
	$(PYTHON) -m llmkit.tiny.ship_base runs/tiny-base
	$(PYTHON) -m llmkit.tiny.make_evals evals/tiny/data

hub: $(STAMP)
	@PYTHONPATH=tests $(PYTHON) -m loopback_hub

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

clean:
	rm -rf runs dist site .pytest_cache .mypy_cache .ruff_cache
