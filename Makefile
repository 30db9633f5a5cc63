# `make help` lists what there is. Each target makes the virtual environment when it is missing or older than what it is made from;
# none but system-packages installs anything outside of the project.
PYTHON ?= python3
HASHES ?= $(shell test "$$(uname -s)" = Linux && $(PYTHON) -c "import sys; sys.exit(sys.version_info >= (3, 14))" && echo yes)
JOBS ?= 1
KILLS ?= 100
N ?= 2000
SEED ?= 0
BASE ?= origin/main
# Columns of `dvc exp show` that would bury the others: code, data, intervals, counts, lesser figures. No parameter is among them.
CLUTTER := Created|hpl/|stages/|data/|reports/|others\.|datasets\.|not_scored\.|calibration\.|clusters\.|gain_over_zero_shot|composed\.(picture|sentence|gain_over)|.*(_ci_|num_(queries|skipped|known|unknown)|rank5|rank10|mINP|rsum)
TEST_PICTURES := $(addprefix data/raw/bundled/Market-1501/,query bounding_box_test)
HAS_VENV := $(PYTHON) -c 'import ensurepip' 2>/dev/null
HAS_CHROMIUM := for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && break; done
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test test-all soak fuzz lock lint demo screenshot docs check exp experiments ablation cross-domain pr-comment help system-packages chromium
repro: .venv/.installed  ## the whole pipeline: what changed since the last run, by DVC's cache
	dvc repro
test: .venv/.installed  ## the quick tests
	python -m pytest -m "not slow"
test-all: .venv/.docs chromium  ## all tests, those too that run the whole pipeline or kill it
	python -m pytest -n 2 --dist loadfile
soak: .venv/.installed  ## KILLS=100: kill -9 at random moments, full disks, two runs at once: what differs, is left over or hangs
	python -m tests.support.soak --kills $(KILLS)
fuzz: .venv/.installed  ## N=2000 SEED=0: so many mutated inputs against every reader; each finding, and how to see it again
	OMP_NUM_THREADS=1 python -m tests.support.fuzz $(N) $(SEED)
lock: .venv/.installed  ## write the hashes of what constraints.txt names into requirements.lock
	python .ci/lock.py
lint: .venv/.installed  ## style, layout and types of the code: ruff and mypy
	ruff check .
	ruff format --check .
	mypy
demo: .venv/.installed  ## after `make repro`: the bundled test pictures as a gallery, and the page to search it
	@test -f data/model/model.json || { echo "error: no data/model; run make repro first" >&2; exit 1; }
	hpl index add data/demo.gallery $(TEST_PICTURES) --model data/model --camera-pattern 'c(\d)s'
	hpl serve data/demo.gallery --model data/model --open
screenshot: .venv/.installed  ## the picture of that page at the top of README.md
	python -m tests.support.screenshot docs/_static/page.png
docs: .venv/.docs  ## the site, in docs/_build/html; a warning is an error
	python -m sphinx -q -W --keep-going -n -j auto docs docs/_build/html
check: .venv/.installed  ## S="tasks=[i2i]": is params.yaml sound, with these changes, and does it fit what preprocess read?
	@python -m hpl.config $(S)
	@python -m hpl.retrieval.checks data/manifests $(S)
exp: .venv/.installed  ## S="loss.prompt_reg=0.5 tasks=[t2i]": check the changes, then `dvc exp run -S` with each
	python -m hpl.config $(S)
	dvc exp run $(addprefix -S ,$(S))
experiments: .venv/.installed  ## a table of what was run so: the parameters that differ, and the main figures
	@dvc exp show --only-changed --md --drop '$(CLUTTER)'
ablation: .venv/.installed  ## JOBS=2: the cells of ablation/dvc.yaml, two side by side, then their report; no cell stops another
	ablation/run $(JOBS)
cross-domain: .venv/.installed  ## RUNS="cuhk icfg": trained on against tested on, from experiments, branches or commits
	@python -m hpl.reports.cross_domain $(RUNS)
pr-comment: .venv/.installed  ## BASE=origin/main: what changed against that revision, as Markdown for a pull request
	@python -m hpl.reports.pull_request $(BASE)
help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 17
system-packages:  ## Debian's python3-venv and chromium, where they are missing: asks for root's rights, by sudo if need be
	@set --; $(HAS_VENV) || set -- $$@ python3-venv; $(HAS_CHROMIUM) || set -- $$@ chromium; \
		test $$# != 0 || { echo "nothing is missing"; exit 0; }; echo "installing $$@"; \
		S=$$(test "$$(id -u)" = 0 || echo sudo); $$S apt-get update -qq && $$S apt-get install -y -qq $$@ >/dev/null

# The pages are tried in a browser; where there is none, those tests say that they are skipped.
chromium:
	@$(HAS_CHROMIUM) || echo "no chromium: the pages are not tried in a browser; to install it: make system-packages" >&2

# What is downloaded must have a hash of requirements.lock. pip refuses hashes for the project itself, so that is installed alone, by
# the setuptools of the lock. HASHES=no (and every system but Linux): the same versions, from whatever place, by constraints.txt.
.venv/.installed: pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version) found; expected Python >= 3.11 (make PYTHON=python3.12 ...)" >&2; exit 1; }
	@$(HAS_VENV) || { echo "error: $(PYTHON) has no venv module (Debian's package python3-venv); to install it:" \
		"make system-packages" >&2; exit 1; }
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
ifeq ($(HASHES),yes)
	sed -n '/^setuptools==/,/[^\\]$$/p' requirements.lock >.venv/setuptools.lock
	.venv/bin/pip install --quiet --require-hashes --no-deps -r .venv/setuptools.lock
	.venv/bin/pip install --quiet --require-hashes --no-deps --no-build-isolation -r requirements.lock
	.venv/bin/pip install --quiet --no-deps --no-build-isolation --no-index -e .
else
	@echo "packages are installed without comparing hashes" >&2
	.venv/bin/pip install --quiet -c constraints.txt -e '.[all,test,lint,docs]'
endif
	touch $@
.venv/.docs: .venv/.installed
	.venv/bin/pip check >/dev/null || .venv/bin/pip check
	touch $@
