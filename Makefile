# make demo: evaluate the embedded benchmark, map a real scene; make test: run the tests; make check: style and types;
# make docs: the site of the documentation. All set up .venv first.
# make qgis-plugin: the plugin for QGIS, dist/segearth_qgis.zip; needs Python alone.
# An environment of yours instead: make test PYTHON=python (requirements must be installed in it).
#
# PyTorch: without an NVIDIA GPU its CPU build, which spares 5 GB, where PyTorch's own index can be reached; else the
# ordinary one. TORCH=cpu or TORCH=default forces one, when .venv is set up.

VENV := .venv
PYTHON3 ?= python3
TORCH ?= auto
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
ifeq ($(filter $(TORCH),auto cpu default),)
$(error TORCH is '$(TORCH)'; allowed: auto, cpu, default)
endif
ifdef PYTHON
READY :=
else
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready$(patsubst %,-%,$(filter cpu default,$(TORCH)))
endif
EXAMPLES := segearth/app/examples
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check
TORCH_PAIR := $(shell sed -n 's/^\(torch[vision]*>=[0-9.]*\).*/"\1"/p' requirements.txt)

.PHONY: demo test check docs qgis-plugin clean

demo: $(READY)
	$(PYTHON) eval.py --config configs/cfg_demo.py --show-dir work_dirs/cfg_demo/pictures
	$(PYTHON) tools/predict.py $(EXAMPLES)/sentinel2_coast.tif --classes-file $(EXAMPLES)/classes.txt \
		--out work_dirs/demo_map --overwrite

test: $(READY)
	@# a file of tests stays in one process; more than four processes are not worth their memory
	$(PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile

check: $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

docs: $(READY)
	@# every warning is an error, such as a link that leads nowhere
	$(PYTHON) -m sphinx --fail-on-warning --keep-going --quiet --fresh-env -c docs . work_dirs/site
	cp work_dirs/site/README.html work_dirs/site/index.html
	@echo work_dirs/site/index.html

qgis-plugin:
	rm -rf build/qgis dist/segearth_qgis.zip
	mkdir -p build/qgis/segearth_qgis dist
	cp tools/qgis/segearth_qgis/*.* LICENSE build/qgis/segearth_qgis
	$(PYTHON3) -m zipfile -c dist/segearth_qgis.zip build/qgis/segearth_qgis

$(VENV)/.ready $(VENV)/.ready-cpu $(VENV)/.ready-default: requirements.txt pyproject.toml
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: Python 3.10 or newer is needed; \
	$(PYTHON3) is $$($(PYTHON3) --version 2>&1). Name another one: make PYTHON3=python3.12 ..." >&2; exit 2; }
	@$(PYTHON3) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON3) has no venv or no ensurepip; on \
	Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	$(PYTHON3) -m venv $(VENV)
	@case $(TORCH) in \
	cpu) $(PIP) --index-url $(TORCH_INDEX) $(TORCH_PAIR) || { echo "error: TORCH=cpu: no CPU build of PyTorch from \
	$(TORCH_INDEX); TORCH=default takes the ordinary one" >&2; exit 2; } ;; \
	auto) if [ "$$(uname -sm)" = 'Linux x86_64' ] && [ ! -e /dev/dxg ] && \
		! ls /dev/nvidia[0-9]* >/dev/null 2>&1 && \
		timeout 8 $(PYTHON3) -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1] + "/torch/", timeout=4)' \
			$(TORCH_INDEX) 2>/dev/null; then \
		echo 'No NVIDIA GPU here: the CPU build of PyTorch (TORCH=default for the ordinary one)'; \
		$(PIP) --index-url $(TORCH_INDEX) $(TORCH_PAIR) || echo 'It could not be had: the ordinary build'; \
	fi ;; \
	esac
	$(PIP) -e '.[dev]'
	@case $(TORCH) in cpu) has='torch.version.cuda' ;; default) has='"+cpu" in torch.__version__' ;; auto) exit 0 ;; esac; \
	$(VENV)/bin/python -c "import sys, torch; sys.exit(bool($$has))" || { echo "error: TORCH=$(TORCH), but $(VENV) has \
	another build of PyTorch: make clean, then again" >&2; exit 2; }
	@# opencv-python, which mmcv requires, needs libGL; servers and containers without it get the build that does not
	$(VENV)/bin/python -c 'import cv2' 2>/dev/null || \
		$(PIP) --force-reinstall --no-deps opencv-python-headless
	touch $(VENV)/.ready $@

clean:
	rm -rf $(VENV) build *.egg-info
