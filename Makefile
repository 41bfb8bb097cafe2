# make demo: evaluate the embedded default; make test: run the tests. Both set up .venv first.
# An environment of yours instead: make test PYTHON=python (requirements must be installed in it).

VENV := .venv
ifdef PYTHON
READY :=
else
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
endif

.PHONY: demo test check clean

demo: $(READY)
	$(PYTHON) eval.py --config configs/cfg_demo.py --show-dir work_dirs/cfg_demo/pictures

test: $(READY)
	$(PYTHON) -m pytest

check: $(READY)
	$(PYTHON) -m ruff check .

$(VENV)/.ready: requirements.txt pyproject.toml
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -e '.[test]'
	@# opencv-python, which mmcv requires, needs libGL; servers and containers without it get the build that does not
	$(VENV)/bin/python -c 'import cv2' 2>/dev/null || \
		$(VENV)/bin/python -m pip install --disable-pip-version-check --force-reinstall --no-deps opencv-python-headless
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
