# Everything happens in .venv; `make demo` and `make test` make it when it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# threads that spin while they wait cost several times the work where processes outnumber processors
export OMP_WAIT_POLICY ?= PASSIVE
export PTYCHOFLOW_DATA ?= $(abspath ../shared/data)

# whole runs and experiments, killed, resumed and struck, the manual's pages word by word, and trials of phase retrieval
# to the end; one whole run stays with the others
RUNS := tests/chaos tests/docs/test_tutorials.py tests/buffer/test_language_example.py \
	tests/acquisition/test_orientation_trial.py tests/workflow/test_classification_killed.py \
	$(wildcard tests/workflow/test_experiment_*.py) \
	$(filter-out tests/end_to_end/test_run.py,$(wildcard tests/end_to_end/test_*.py))

# what comes out is told to the bit, which a GPU does not promise; and three tests at a time are many for its memory
ON_CPU := CUDA_VISIBLE_DEVICES=

.PHONY: help demo test runs hosts gpu docs lint format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    run the whole workflow on this host, about two minutes; ends by naming its report"
	@echo "make test    lint, types and tests, about a quarter of an hour"
	@echo "make runs    tests that are whole runs and experiments: killed, resumed, a night in short; ten minutes"
	@echo "make hosts   tests that need the machine: several hosts on it, a SLURM cluster; root, ten minutes"
	@echo "make gpu     what needs a GPU: tests of the buffer, and the check of everything that a GPU does; ten minutes"
	@echo "make docs    build the manual into docs/_build; anything that does not fit together is an error"
	@echo "make lint    lint and types only"
	@echo "make format  bring the code into the project's format"
	@echo "make clean   remove the environment and caches; runs/ stays"

demo: $(STAMP)
	$(BIN)/ptychoflow run --preset demo

# more processes than processors: many tests wait for other processes; those of one module share what it sets up, and the
# modules come in their order, as large ones at the end would leave the other processes idle
test: lint
	$(ON_CPU) $(BIN)/pytest -n 3 --dist loadscope --no-loadscope-reorder $(addprefix --ignore=,$(RUNS))

# two at a time: each is several processes
runs: $(STAMP)
	$(ON_CPU) $(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder $(RUNS)

# one after another: each test has the machine to itself
hosts: $(STAMP)
	$(BIN)/pytest tests/hosts

gpu: $(STAMP)
	$(BIN)/pytest tests/buffer/test_buffer_cuda.py
	$(BIN)/ptychoflow bench gpu

docs: $(STAMP)
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet -b html docs docs/_build
	@echo "the manual: docs/_build/index.html"

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# an environment that stands keeps its Python: two in one fail at the first import that is compiled
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with PYTHON=...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[workflow,dev,docs,dectris,epics,tiled,openvino,ucx]'
	touch $@
