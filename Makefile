# make demo    run the shipped example in runs/digits; again: says that it is done
# make check   linter, formatter, types of the package, of the configs and of the tests' helpers
# make test    the tests
# make coverage  the tests, with the coverage of the methods and of the files beside them: a quarter slower
# make slow    the tests that take long on a CPU: about a quarter of an hour
# make gpu     the tests that compute, on the GPU or TPU that is there, with the packages of PYTHON; without one, a rehearsal on the CPU
# make browser  the tests of the comparison page in a headless Chromium, which must be installed
# make notebooks  executes notebooks/digits.ipynb
# make torch   the tests that need PyTorch, torchax, Keras or Equinox, in an environment of their own, .venv-torch: several GB
# make example  an ImageNet network forgets a class, in the same environment: a few minutes, results in runs/imagenet
# make torch-notebook  executes notebooks/pytorch.ipynb, in the same environment
# make soak    the command killed, damaged, signalled, on a full disk: about 15 minutes, not part of the tests
# make docs    builds the documentation site in build/site, in an environment of its own, .venv-docs; a warning or a dead link fails it
# make pictures  draws the pictures of README and of the task pages again: about six minutes
# make wheel   builds the wheel, installs it away from the checkout and runs the shipped example there, by its name
#
# Each but "make gpu", "make torch", "make example", "make torch-notebook" and "make docs" makes .venv and installs what it needs there, once. Needed: make and Python 3.11 or newer with venv and pip.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
TORCH := .venv-torch
DOCS := .venv-docs
# Quiet but for errors; Python compiles what is imported, at its first import, and keeps that: the tests start it often.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt

.PHONY: demo check test coverage slow gpu browser notebooks torch torch-notebook example soak docs pictures wheel format clean
.NOTPARALLEL:  # two pips in one environment get in each other's way

demo: $(VENV)/installed
	@$(BIN)/delete-jax --config=configs/digits.py --workdir=runs/digits

check: $(VENV)/installed-test
	@$(BIN)/ruff check -q
	@$(BIN)/ruff format --check -q
	@$(BIN)/mypy

test: $(VENV)/installed-test
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The limit is in pyproject.toml.
coverage: $(VENV)/installed-test
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term

slow: $(VENV)/installed-test
	@$(BIN)/python -m pytest -q -m slow

# One process, and nothing is installed: the JAX of such a machine knows its devices. Less of it: make gpu GPU=tests/test_parity.py.
gpu:
	@DELETE_JAX_TESTS_ON=accelerator PYTHONPATH=. $(PYTHON) -m pytest -q -rs -m '(not slow or golden) and not browser' $(GPU)

browser: $(VENV)/installed-browser
	@$(BIN)/python -m pytest -q -rs -m browser tests/test_compare_browser.py

# Outputs are stored by hand: jupyter-execute --inplace notebooks/digits.ipynb.
notebooks: $(VENV)/installed-notebooks
	@$(BIN)/jupyter-execute notebooks/digits.ipynb

torch: $(TORCH)/installed-torch
	@$(TORCH)/bin/python -m pytest -q -n $(WORKERS) tests/test_from_torch.py tests/test_from_keras.py \
	    tests/test_networks_torch.py tests/test_torch_files.py tests/test_weights.py tests/test_your_own.py tests/test_examples.py \
	    tests/test_agreement_torch.py tests/test_verify.py::test_a_state_dict_of_torch

torch-notebook: $(TORCH)/installed-torch
	@$(TORCH)/bin/jupyter-execute notebooks/pytorch.ipynb

example: $(TORCH)/installed-torch
	@$(TORCH)/bin/python examples/imagenet_class.py --out=runs/imagenet

# Less of it: make soak SOAK='--only signals --count 5'.
soak: $(VENV)/installed-test
	@$(BIN)/python tests/soak.py $(SOAK)

docs: $(DOCS)/installed-docs
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build  # not -q: what is not shown does not count as a warning

pictures: $(VENV)/installed
	@$(BIN)/python benchmarks/studies/pictures.py --out=runs/pictures

wheel: $(BIN)/python
	@rm -rf build/wheel && mkdir -p build/wheel/empty
	@$(BIN)/python -m pip wheel -qq --disable-pip-version-check --no-deps -w build/wheel .
	@$(PYTHON) -m venv build/wheel/venv
	@build/wheel/venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt build/wheel/*.whl
	@cd build/wheel/empty && ../venv/bin/delete-jax --config=digits:quick --workdir=run
	@rm -r build/wheel

format: $(VENV)/installed-test
	@$(BIN)/ruff check -q --fix
	@$(BIN)/ruff format -q

clean:
	rm -rf $(VENV) $(TORCH) $(DOCS) .cache .coverage .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "error: Python 3.11 or newer is needed, '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1);" \
	        "name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV)"
	@$(INSTALL) -e .
	@touch $@

# The test extra contains the rest: "make demo" afterwards installs nothing.
$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing with the test tools into $(VENV)"
	@$(INSTALL) -e '.[test]'
	@touch $(VENV)/installed $@

$(VENV)/installed-browser: $(VENV)/installed-test
	@echo "installing with Playwright into $(VENV)"
	@$(INSTALL) -e '.[test,browser]'
	@touch $@

$(VENV)/installed-notebooks: $(VENV)/installed-test
	@echo "installing with Jupyter's kernel into $(VENV)"
	@$(INSTALL) -e '.[test,notebooks]'
	@touch $@

# Apart, so that the other targets neither wait for torch nor depend on it.
$(TORCH)/installed-torch: pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory VENV=$(TORCH) $(TORCH)/bin/python
	@echo "installing with PyTorch, Keras and Equinox into $(TORCH)"
	@$(subst $(BIN),$(TORCH)/bin,$(INSTALL)) -e '.[test,torch-test]'
	@touch $@

$(DOCS)/installed-docs: pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory VENV=$(DOCS) $(DOCS)/bin/python
	@echo "installing the documentation's tools into $(DOCS)"
	@$(subst $(BIN),$(DOCS)/bin,$(INSTALL)) -e '.[docs]'
	@touch $@
