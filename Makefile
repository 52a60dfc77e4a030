# make demo    a server, an agent and a device here: what a client sees, what a person does, what is written down
# make test    linter, types, rooms, fast tests at full depth, then those with real sockets and processes
# make fast    fast tests only, with few examples of each property and short loops: docs/testing.rst
# make coverage  the fast tests, and which branches of each room they take
# make long    slow tests that make test leaves out: benchmarks, GiBs, faults in random order, the whole HTTP API
# make fuzz    hostile bytes for all that reads a stranger's, FUZZ_SECONDS of it (an hour): docs/testing.rst
# make agent   the agent as one file, dist/revtunnel-agent.pyz, for this kind of machine
# make bench   relay figures beside a direct connection and other relays, into benchmarks/results
#
# Everything runs in .venv, made with $(PYTHON) when it is not there; "make clean" takes it away.

PYTHON ?= python3
FUZZ_SECONDS ?= 3600
BIN := .venv/bin
# pytest keeps the tests as it compiled them, or does that again in each process, for 5 s
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test fast long coverage fuzz lint bench agent clean

demo: .venv/installed
	$(BIN)/python examples/demo.py

test: lint
	$(BIN)/pytest -q tests/test_rooms.py
	$(BIN)/pytest -q -n 2 --hypothesis-profile=full
	$(BIN)/pytest -q -m "slow and not long" -n 4 --dist loadfile --no-loadscope-reorder

lint: .venv/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fast: .venv/tools
	$(BIN)/pytest -q -n 2

coverage: .venv/tools
	$(BIN)/coverage run -m pytest -q
	$(BIN)/python -m tests.branches

long: .venv/tools
	$(BIN)/pytest -q -m long -n 2

fuzz: .venv/tools
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

agent: .venv/installed
	mkdir -p dist
	$(BIN)/python -m revtunnel.daemons.agent_file dist/revtunnel-agent.pyz

bench: .venv/installed
	$(BIN)/python -m benchmarks.relay

clean:
	rm -rf .venv build dist *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or later is needed; name one: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: setup.cfg pyproject.toml setup.py $(wildcard revtunnel/_pump*.[ch]) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/tools: setup.cfg pyproject.toml setup.py $(wildcard revtunnel/_pump*.[ch]) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	touch $@ .venv/installed
