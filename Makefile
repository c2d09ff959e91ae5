# Two commands do everything, on a fresh machine too: `make serve` and `make test`.

VENV := .venv
ORACLES := .venv-oracles
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
RUN := $(VENV)/$(BIN)
NANO := runs/nano

.PHONY: help serve test check format oracles clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile

# Marks an environment as complete: made anew when the dependencies change.
$(VENV)/ready: pyproject.toml setup.sh
	@sh setup.sh $(VENV) dev
	@touch $@

$(ORACLES)/ready: pyproject.toml setup.sh
	@sh setup.sh $(ORACLES) dev,oracles
	@touch $@

serve: $(VENV)/ready ## train the smallest model on the bundled books (or go on with it), and let it write
	@if [ -f $(NANO)/latest ]; then \
		$(RUN)/trainer train --resume $(NANO); \
	else \
		$(RUN)/trainer train --preset nano --sources books --out $(NANO) --overwrite; \
	fi
	@printf '\nOnce upon a time'
	@$(RUN)/trainer sample $(NANO) --prompt "Once upon a time"

test: check ## all checks and all tests, on two processes
	$(RUN)/python -m pytest -n 2

check: $(VENV)/ready ## ruff, formatting and types
	$(RUN)/ruff check trainer tests
	$(RUN)/ruff format --check trainer tests
	$(RUN)/pyright

format: $(VENV)/ready ## let ruff mend and format the code
	$(RUN)/ruff check --fix trainer tests
	$(RUN)/ruff format trainer tests

oracles: $(ORACLES)/ready ## regenerate tests/fixtures with PyTorch, and hold a model of ours against transformers
	$(ORACLES)/$(BIN)/python -m tests.make_oracles
	$(ORACLES)/$(BIN)/python -m pytest tests/with_transformers.py

clean: ## remove the environments, the caches and the built files (not runs/)
	rm -rf $(VENV) $(ORACLES) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
