# lognet: everything a newcomer or a maintainer runs. Each target sets up its own virtual environment first.
PYTHON ?= python3
PYTHON_OLDEST ?= python3.10
VENV ?= .venv
VENV_OLDEST ?= .venv-oldest
CONSTRAINTS ?= requirements/constraints.txt
SWEEP_ARGS ?=
QUALITY_ARGS ?=
BENCH_ARGS ?=
SIMDE ?= /usr/include
PYTEST_ARGS ?=
# Test processes: for the whole suite one a core, at most four; for a part of it none but pytest's own.
TEST_JOBS ?= $(if $(PYTEST_ARGS),0,auto)

EXTRAS := sweep,quant,dev
# Tools that torch calls by name (ninja) are in the environment's own bin folder, and what it compiles (qtorch) goes into the
# environment too: in the user's common cache, one killed compilation makes all later ones wait for ever.
in_venv = PATH="$(abspath $(VENV)/bin):$$PATH" TORCH_EXTENSIONS_DIR="$(abspath $(VENV))/torch_extensions" $(VENV)/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help sweep quality bench docs test test-slow test-oldest test-sanitized test-avx512 lint format clean

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

sweep: $(VENV)/.installed  ## train the sweep's small tasks at several widths and write the report
	$(in_venv) -m lognet.sweep $(SWEEP_ARGS)

quality: $(VENV)/.quality  ## train Madam, tuned Adam and SGD on twenty small tasks and write quality.md (hours)
	$(in_venv) -m benchmarks.quality $(QUALITY_ARGS)

docs: $(VENV)/.docs  ## the guides and the reference as a site, in build/docs
	$(in_venv) -m sphinx -E -W --keep-going -q -b html -c docs . build/docs
	@echo "build/docs/index.html"

bench: $(VENV)/.bench  ## measure speed and memory and write docs/benchmarks.md (minutes; leave the machine alone)
	$(in_venv) -m benchmarks.speed $(BENCH_ARGS)

test: $(VENV)/.clients  ## the test suite, without what is marked slow
	$(in_venv) -m pytest -n $(TEST_JOBS) --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

test-slow: $(VENV)/.clients $(VENV)/.docs  ## only what is marked slow (many minutes)
	$(in_venv) -m pytest -m slow $(PYTEST_ARGS)

test-oldest:  ## the test suite with the oldest supported versions, on PYTHON_OLDEST (a large download)
	@$(MAKE) --no-print-directory PYTHON="$(PYTHON_OLDEST)" VENV="$(VENV_OLDEST)" CONSTRAINTS=requirements/oldest.txt test

# These need GCC. They build in copies of the checkout, so that its own build stays. The program is linked to the library by name,
# so that it loads the copy's. Python is built with -fwrapv, under which no overflow is undefined: hence -fno-wrapv. The test files
# must not start a Python of their own, because that Python does not load the sanitizer.
SANITIZED := build/sanitized
comma := ,
define build_sanitized
	rm -rf $(SANITIZED)/$(1) && mkdir -p $(SANITIZED)/$(1)
	cp -a lognet optim quant tests setup.py pyproject.toml README.md LICENSE $(SANITIZED)/$(1)
	rm -f $(SANITIZED)/$(1)/quant/kernels/_native.so
	cd $(SANITIZED)/$(1) && LOGNET_CXXFLAGS="-O1 -g -fno-wrapv $(2)" $(abspath $(VENV))/bin/python setup.py -q build_ext --inplace
	cd $(SANITIZED)/$(1) && g++ -std=c++17 -O1 -g -Wall $(2) -I quant/kernels/csrc -I optim/csrc tests/native/sanitized.cpp \
	    -L quant/kernels -l:_native.so '-Wl,-rpath,$$ORIGIN/quant/kernels' -pthread -o sanitized
endef
define run_sanitized
	$(SANITIZED)/$(1)/sanitized
	cd $(SANITIZED)/$(1) && ASAN_OPTIONS=detect_leaks=0 \
	    LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	    $(abspath $(VENV))/bin/python -m pytest -q --capture=sys -k "$(2)" \
	    $(addprefix tests/quant/kernels/test_,encoding.py native.py product.py) tests/optim/engines/test_native.py
endef

test-sanitized: $(VENV)/.installed  ## the native kernels under GCC's sanitizers of memory, undefined behaviour and threads (minutes)
	$(call build_sanitized,address,-fsanitize=address$(comma)undefined$(comma)float-cast-overflow -fno-sanitize-recover=all)
	$(call run_sanitized,address)
	$(call build_sanitized,thread,-fsanitize=thread)
	TSAN_OPTIONS=halt_on_error=1 $(SANITIZED)/thread/sanitized threads

# The emulation needs integers that wrap. GCC compiles lambdas for the target of the command line and not for the header's: hence
# the -mno-avx512 flags, after which only the name of AVX-512 is left. LOGNET_KERNELS makes Python fail without the level.
test-avx512: export LOGNET_KERNELS := avx512
test-avx512: $(SIMDE)/simde/x86/avx512.h $(VENV)/.installed  ## the AVX-512 kernels emulated in AVX2, under GCC's sanitizer of memory (minutes; wants libsimde-dev)
	$(call build_sanitized,avx512,-fwrapv -Wno-psabi -fsanitize=address -include tests/native/avx512_emulated.h -I $(SIMDE) \
	    -mno-avx512bw -mno-avx512dq -mno-avx512vl -mprefer-vector-width=256)
	$(call run_sanitized,avx512,avx512)

$(SIMDE)/simde/x86/avx512.h:
	@echo "error: no SIMD Everywhere in '$(SIMDE)': install it (Debian, Ubuntu: the package libsimde-dev), or name its folder with SIMDE=..." >&2; exit 1

lint: $(VENV)/.installed  ## ruff check, ruff format --check and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed  ## rewrite the code as ruff would have it
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove the virtual environments, builds and caches (sweep-results/ and quality-results/ stay)
	rm -rf $(VENV) $(VENV_OLDEST) build dist lognet.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find lognet optim quant tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamp is written last and removed first: an environment without one is unfinished and is made again from nothing,
# one whose stamp is merely older than the requirements is brought up to date.
$(VENV)/.installed: pyproject.toml setup.py quant/kernels/sources.py $(wildcard $(addsuffix .*,quant/kernels/csrc/* quant/kernels/csrc/*/* optim/csrc/*)) $(CONSTRAINTS)
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no '$(PYTHON)' here: install Python 3.10 or newer, or name one with PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: lognet needs Python 3.10 or newer and '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1): name another with PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "error: '$(PYTHON)' has no venv module: install it (Debian, Ubuntu: the package python3-venv), or name another Python with PYTHON=..." >&2; exit 1; }
	@echo "Setting up $(VENV) (some minutes the first time)"
	@test -e $@ || "$(PYTHON)" -m venv --clear $(VENV)
	@rm -f $@
	$(VENV)/bin/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) -e ".[$(EXTRAS)]"
	@touch $@

# What only the quality suite and its tests need, on top. The checkout is installed by then: a second `-e` would compile the
# kernels again.
$(VENV)/.quality: $(VENV)/.installed
	$(VENV)/bin/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) "lognet[quality]"
	@touch $@

# The 8-bit optimizers of others, which the benchmarks compare with.
$(VENV)/.bench: $(VENV)/.installed
	$(VENV)/bin/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) "lognet[bench]"
	@touch $@

# What only the documentation needs, on top.
$(VENV)/.docs: $(VENV)/.installed
	$(VENV)/bin/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) "lognet[docs]"
	@touch $@

# What only the tests need, on top. torchvision lies apart: PyPI's build cannot be imported beside a CPU build of torch, and would
# take along whatever imports it where it is there (transformers, Lightning). tests/clients/vision.py finds it.
# qtorch compiles its C++ when first imported: here, and not within the time limit of whichever test comes first.
$(VENV)/.clients: $(VENV)/.quality
	$(VENV)/bin/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) "lognet[clients,paper]"
	$(VENV)/bin/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) --no-deps --upgrade --target $(VENV)/vision torchvision
	-$(in_venv) -W ignore -c "import qtorch.quant"
	@touch $@
