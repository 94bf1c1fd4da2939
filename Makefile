# Each target is one command on a machine that has Python 3.11 or newer and make; .venv is made when it is missing.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint bench clean

demo: .venv/base
	@$(BIN)/wise-creds demo

test: .venv/dev
	@$(BIN)/python -m pytest --cov

lint: .venv/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: .peers/ready
	@.peers/bin/python benchmarks/startup.py
	@.peers/bin/python benchmarks/startup_aws.py
	@.peers/bin/python benchmarks/tokens.py
	@.peers/bin/python benchmarks/rotation.py
	@.peers/bin/python benchmarks/fleet.py docs/fleet.png

clean:
	@rm -rf .venv .peers .mypy_cache .pytest_cache .ruff_cache .coverage dist

.venv/base: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { \
	  echo "$(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; rm -rf .venv; exit 2; }
	@$(PIP) install --constraint constraints.txt --editable '.[all]'
	@touch $@

.peers/ready: .venv/base benchmarks/peers.txt
	@test -x .peers/bin/python || $(PYTHON) -m venv .peers
	@.peers/bin/python -m pip --disable-pip-version-check --quiet install --requirement benchmarks/peers.txt --editable '.[all]'
	@touch $@

.venv/dev: .venv/base
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@
