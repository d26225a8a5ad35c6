# make build   set up .venv and take a ResNeXt-50 to a judged INT8 engine
# make test    set up .venv and run the tests
#
# PYTHON       the interpreter to start from (3.11 or newer)
# EXTRAS       what to install; e.g. EXTRAS=build,gpu,rtx,test on a machine with an NVIDIA GPU
# TORCH_INDEX  where a CPU wheel of torch is served, e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu
# ARGS         more flags for the build, or for pytest
PYTHON ?= python3
EXTRAS ?= build,cpu,rtx,test
TORCH_INDEX ?=
ARGS ?=

.PHONY: build test
.DELETE_ON_ERROR:

build: .venv/ready-$(EXTRAS)
	.venv/bin/python -m pipeline build --arch resnext50 --precision int8 $(ARGS)

test: .venv/ready-$(EXTRAS)
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

# torch goes first and pinned: a plain `torch` may bring gigabytes of CUDA packages.
.venv/ready-$(EXTRAS): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@
