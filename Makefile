# Each target does all its own set-up on a fresh machine that has Python >= 3.11, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: audit test test-slow check bench stock clean

# The lens on a model built from its configuration: what there is until organisms and backdoor methods exist.
# The seedling has learned nothing, so "inconclusive" (status 3) is the right answer; a concern (1), bad input (2) or a fault (70) fails.
audit: $(STAMP)
	@echo "No organism is on the shelf yet: this audits organism:seedling, an untrained LLaVA built from its configuration,"
	@echo "with the methods there are. It has learned nothing, so the right verdict is 'inconclusive'."
	@$(BIN)/glasshouse run lens --model organism:seedling; status=$$?; test $$status -eq 0 -o $$status -eq 3

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow || test $$? -eq 5  # 5: no test is that slow yet

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python bench/capture.py
	$(BIN)/python bench/gather.py
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/world.py

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "glasshouse needs Python >= 3.11, found $$($(PYTHON) --version); set PYTHON=python3.12 or similar"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(STAMP)

# Grow every organism that ships with the package, anew where its card is stale.
stock: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tools/stock.py

clean:
	rm -rf $(VENV) runs
