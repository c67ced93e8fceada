# `make setup && make demo` is all a newcomer needs; `make test` and `make check` are all a change needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EVAL := $(VENV)/.eval
TEST_PACKAGES := pulseaudio libasound2-plugins libportaudio2 espeak-ng sox

# $(call install,PACKAGES,WHAT FOR): with apt-get as root or with a sudo that asks nothing; else one sentence, status 1.
define install
{ case "$$(id -u)" in 0) become="env" ;; *) become="sudo -n env" ;; esac; \
command -v apt-get >/dev/null && $$become true 2>/dev/null \
&& $$become DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -q && apt-get install -qy --no-install-recommends $(1)' \
>/dev/null </dev/null; } || { echo "$(2): missing. On Debian or Ubuntu: sudo apt-get install $(1)"; false; }
endef

.PHONY: help setup demo test check bench clean

help:            ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1  \t/p' $(MAKEFILE_LIST)

setup: $(STAMP)  ## everything glowd needs, into .venv; the second time it only looks
	@$(BIN)/python -c 'import sounddevice' 2>/dev/null || $(call install,libportaudio2,PortAudio for the sound device) || true
	@echo "Ready. make demo speaks; $(BIN)/glowd runs the daemon; $(BIN)/glowd doctor says what is missing."

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "glowd needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { $(call install,python3-venv,Python's venv) && $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing into $(VENV); the first time takes a few minutes."
	@$(BIN)/pip install -qq --disable-pip-version-check -e '.[dev]' -c constraints.txt </dev/null
	@touch $@

# PESQ comes as C source, and Triton takes 700 MB. Who only speaks needs neither, nor a compiler, so `setup` leaves them out.
$(EVAL): $(STAMP)
	@command -v cc >/dev/null && $(BIN)/python -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
	  || $(call install,gcc libc6-dev python3-dev,A C compiler for PESQ)
	@$(BIN)/pip install -qq --disable-pip-version-check -e '.[dev,eval,triton]' -c constraints.txt </dev/null
	@touch $@

demo: setup      ## starts a daemon, lets it speak, measures it, writes demo.wav
	@$(BIN)/python -m glowd.clients.cli.demo

test: setup $(EVAL)  ## all tests
	@for tool in pulseaudio espeak-ng sox; do command -v $$tool >/dev/null || missing=1; done; \
	  ls /usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so >/dev/null 2>&1 || missing=1; \
	  test -z "$$missing" || $(call install,$(TEST_PACKAGES),Programs the tests use)
	$(BIN)/pytest

check: setup     ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p .typecheck && ln -sfn .. .typecheck/glowd
	$(BIN)/mypy

bench: setup     ## the figures of README.md, measured on this machine; make bench PARTS=network measures a part
	$(BIN)/python -m tests.bench $(PARTS)

clean:           ## removes what was built and made, .venv too
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .typecheck demo.wav
	find flow daemon clients tests -name __pycache__ -prune -exec rm -rf {} +
