# make quickstart   set up, then run the default study
# make test         set up, then check and test

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: quickstart test check setup clean

quickstart: setup
	snakemake

test: setup check
	pytest

check: setup
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint

setup: $(READY)

$(READY): envs/requirements.txt envs/dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r envs/requirements.txt -r envs/dev.txt
	touch $(READY)

clean:
	rm -rf results logs .snakemake
