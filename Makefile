# Each target sets up what it needs. Another interpreter: make book PYTHON=python3.12
PYTHON ?= python3
PROFILE ?= read
JOBS ?=
VENV := .venv
READY := $(VENV)/.installed
UV := $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python -c constraints.txt

.PHONY: help book test lint bench lab environment chromium clean distclean

help:
	@echo "make book    execute the chapters and build the site (PROFILE=$(PROFILE): smoke, read or paper; JOBS=chapters at once, one a core)"
	@echo "make test    style, types, and every test, in a browser too"
	@echo "make lint    style and types only"
	@echo "make bench   how fast searches, photographs and training are on this machine"
	@echo "make lab     the chapters in JupyterLab"
	@echo "make clean   remove what was built (distclean: the environment, too)"

book: $(READY)
	$(VENV)/bin/facesr assets fetch faces-test || echo "No held-out faces: the chapters run on samples of the prior, and say so."
	$(VENV)/bin/facesr assets fetch solvay-1927 || echo "No photograph of 1927: chapter 12 puts faces into another, and says so."
	$(VENV)/bin/facesr assets fetch niqe || echo "No pristine photographs' features: chapter 12 has no NIQE, and says so."
	$(VENV)/bin/facesr book --profile $(PROFILE) $(if $(JOBS),--jobs $(JOBS))

# One thread for each of two workers; the first that needs executed chapters or the site makes them for both.
test: lint chromium
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2

lint: $(READY)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

bench: $(READY)
	$(VENV)/bin/facesr bench

lab: $(READY)
	$(UV) -e '.[lab]'
	$(VENV)/bin/jupyter lab book

environment: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "$$($(PYTHON) --version) will not do: Python 3.10 to 3.13 is needed (make PYTHON=python3.12 ...)"; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) -e '.[test]'
	@touch $@

# The browser tests use the system's Chromium; without it they are skipped and say so.
chromium:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v $$name > /dev/null && exit 0; \
	done; \
	if ! command -v apt-get > /dev/null; then echo "no Chromium and no apt-get: install Chromium for the browser tests"; exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=; \
	elif sudo -n true 2> /dev/null; then as_root="sudo -n"; \
	else echo "no Chromium, and no right to install it: sudo apt-get install chromium"; exit 0; fi; \
	$$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium \
	  || echo "apt-get could not install Chromium: the browser tests will say so"

clean:
	rm -rf _build .pytest_cache .hypothesis .mypy_cache .ruff_cache

distclean: clean
	rm -rf $(VENV)
