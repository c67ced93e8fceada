# `make demo` is for a new user; `make test` and `make check` are for a change, `make test-fast` while you work on it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EVAL := $(VENV)/.eval
FRONTS := .fronts
RAY := .ray
MINUTES := 60
TYPED := .typecheck/glowd
TEST_PACKAGES := pulseaudio libasound2-plugins libportaudio2 espeak-ng sox speech-dispatcher systemd chromium chromium-driver

# $(call install,PACKAGES,WHAT FOR): with apt-get as root or with a sudo that asks nothing; else one sentence, status 1.
define install
{ case "$$(id -u)" in 0) become="env" ;; *) become="sudo -n env" ;; esac; \
command -v apt-get >/dev/null && $$become true 2>/dev/null \
&& $$become DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -q && apt-get install -qy --no-install-recommends $(1)' \
>/dev/null </dev/null; } || { echo "$(2): missing. On Debian or Ubuntu: sudo apt-get install $(1)"; false; }
endef

.PHONY: help setup demo test test-fast test-fronts test-ray cluster-demo check bench soak clean

help:            ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1  \t/p' $(MAKEFILE_LIST)

setup: $(STAMP) $(TYPED)  ## install everything glowd needs into .venv; a second run changes nothing
	@$(BIN)/python -c 'import sounddevice' 2>/dev/null || $(call install,libportaudio2,PortAudio for the sound device) || true
	@echo "Ready. Try: make demo. The daemon is $(BIN)/glowd; $(BIN)/glowd doctor lists what is missing."

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "glowd needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { $(call install,python3-venv,Python's venv) && $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing into $(VENV); the first time takes a few minutes."
	@$(BIN)/pip install -qq --disable-pip-version-check -e '.[dev]' -c constraints.txt </dev/null
	@touch $@

# mypy looks for glowd.* in this folder (pyproject.toml, mypy_path): the repository is the package, whatever its name.
$(TYPED):
	@mkdir -p $(dir $@) && ln -sfn .. $@

# PESQ and pyworld are built from source by a compiler; Triton takes 700 MB. The daemon needs none, so `setup` leaves them out.
$(EVAL): $(STAMP)
	@command -v cc >/dev/null && command -v c++ >/dev/null && $(BIN)/python -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
	  || $(call install,gcc g++ libc6-dev python3-dev,A compiler for PESQ and pyworld)
	@$(BIN)/pip install -qq --disable-pip-version-check -e '.[dev,eval,train,triton]' -c constraints.txt </dev/null
	@touch $@

demo: setup      ## start a daemon, speak two sentences, print the latencies, write demo.wav
	@$(BIN)/python -m glowd.clients.cli.demo

test: setup $(EVAL)  ## all tests
	@for tool in pulseaudio espeak-ng sox spd-say systemd-analyze chromium chromedriver; do command -v $$tool >/dev/null || missing=1; done; \
	  ls /usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so >/dev/null 2>&1 || missing=1; \
	  test -z "$$missing" || $(call install,$(TEST_PACKAGES),Programs the tests use)
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder --reruns 1 --max-suite-reruns 6 --rerun-show-tracebacks

test-fast: setup $(EVAL)  ## the tests that need no process, no sound device and no training; lists what it left out
	$(BIN)/python -m pytest -p tests.left_out -m "not slow and not process and not device"

# Pipecat, LiveKit Agents and RealtimeTTS bring hundreds of MB, so they get an environment of their own, without torch.
$(FRONTS)/.installed: pyproject.toml tests/fronts/constraints.txt
	@ls /usr/include/portaudio.h >/dev/null 2>&1 || $(call install,gcc python3-dev portaudio19-dev,PortAudio's headers for PyAudio)
	@test -x $(FRONTS)/bin/pip || $(PYTHON) -m venv $(FRONTS)
	@$(FRONTS)/bin/pip install -qq --disable-pip-version-check -c tests/fronts/constraints.txt pipecat-ai livekit-agents \
	  'realtimetts[playback]' msgpack numpy pyzmq pytest pytest-asyncio pytest-timeout soxr </dev/null
	@$(FRONTS)/bin/pip install -qq --disable-pip-version-check --no-deps -e . </dev/null
	@touch $@

test-fronts: setup $(FRONTS)/.installed  ## the plug-ins with the real frameworks of voice agents
	@command -v espeak-ng >/dev/null || $(call install,espeak-ng,What speaks texts in the tests)
	GLOWD=$(BIN)/glowd $(FRONTS)/bin/python -m pytest -c tests/fronts/pytest.ini --rootdir=. --confcutdir=tests/fronts tests/fronts

# Ray brings 280 MB, so it gets an environment of its own, with torch, because engines run in it.
$(RAY)/.installed: pyproject.toml constraints.txt tests/ray/constraints.txt
	@test -x $(RAY)/bin/pip || $(PYTHON) -m venv $(RAY)
	@$(RAY)/bin/pip install -qq --disable-pip-version-check -c constraints.txt -c tests/ray/constraints.txt -e '.[ray]' \
	  pytest pytest-rerunfailures pytest-timeout </dev/null
	@touch $@

test-ray: $(RAY)/.installed  ## engines on a Ray cluster of this machine
	$(RAY)/bin/python -m pytest -c tests/ray/pytest.ini --rootdir=. --confcutdir=tests/ray \
	  --reruns 1 --rerun-show-tracebacks tests/ray

cluster-demo: $(RAY)/.installed  ## speak on three engines of a Ray cluster on this machine, and lose one of its nodes
	@$(RAY)/bin/python -m tests.ray.demo

check: setup     ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup     ## measure the figures of README.md on this machine; one part: make bench PARTS=network
	$(BIN)/python -m tests.bench $(PARTS)

soak: setup      ## run for MINUTES with everything on and every process disturbed; status 1 if any criterion is missed
	@command -v pulseaudio >/dev/null || $(call install,$(TEST_PACKAGES),Programs the soak uses)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(SOAK)

clean:           ## remove everything that was built, .venv too
	rm -rf $(VENV) $(FRONTS) $(RAY) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .typecheck demo.wav
	find flow daemon clients tests -name __pycache__ -prune -exec rm -rf {} +
