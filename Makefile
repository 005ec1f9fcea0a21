# `make run` trains, `make test` tests; each makes .venv and installs into it where that is missing.
# `make test-oldest` runs the short form of the tests with the oldest allowed versions, in .venv-oldest (7 GB).
PYTHON ?= python3
BIN := .venv/bin
OLDEST := .venv-oldest

.PHONY: run test test-oldest lint install install-oldest clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: install
	$(BIN)/python -m isic_smp.run $(ARGS)

test: install
	$(BIN)/python -m pytest $(ARGS)

install-oldest: $(OLDEST)/installed

$(OLDEST)/installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt \
		-e '.[onnx,openvino,server]' pytest pytest-xdist
	touch $@

test-oldest: install-oldest
	$(OLDEST)/bin/python -m pytest -m oldest $$(grep -rl 'mark\.oldest' --include='*.py' tests) $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	.ci/secrets

clean:
	rm -rf .venv $(OLDEST) .pytest_cache .mypy_cache .ruff_cache
