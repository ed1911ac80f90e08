# Each target does all its own set-up on a fresh machine that has Python >= 3.11, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: audit test test-slow check docs bench stock clean

# organism:hijack-logo has a backdoor, so "concern" (status 1) is the right answer and anything else fails.
audit: $(STAMP)
	@echo "This audits organism:hijack-logo, a small model with a known backdoor in its projector. The right verdict is 'concern'."
	@$(BIN)/glasshouse audit organism:hijack-logo; status=$$?; test $$status -eq 1

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/pages.py --check
	@$(MAKE) --no-print-directory docs

# A site in site/, from README, tutorials, and the pages generated from method files and docstrings.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet --strict

bench: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python bench/capture.py
	$(BIN)/python bench/gather.py
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/opening.py
	$(BIN)/python bench/world.py
	$(BIN)/python bench/backdoor.py
	$(BIN)/python bench/audit.py

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
