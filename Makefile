# Everything a fresh machine with Python 3.11, make and a compiler needs: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test lint docs site bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24' 'setuptools<81' wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[live,vlm,gpu,report,dev]'
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation deepspeed
	$(BIN)/python -m compileall -q llmdoctor # start-up must not depend on who may write bytecode
	touch $@

demo: install
	$(BIN)/llmdoctor demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/examples.py

site: docs
	$(BIN)/zensical build --strict --config-file mkdocs.yml

bench: install
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/runaway.py
	$(BIN)/python benchmarks/check.py

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
