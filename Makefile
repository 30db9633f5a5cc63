# make repro: the whole pipeline; make test: the quick tests; make test-all: those too that run the whole pipeline or kill it;
# make check: is params.yaml sound?
# make exp S="loss.prompt_reg=0.5 model.task_routing=false": check the changes, then `dvc exp run -S` with each.
# make experiments: a table of what was run so: the parameters that differ, and the main figures.
# make ablation JOBS=2: the cells of ablation/dvc.yaml, two side by side, then their report; a cell that fails stops no other.
# make cross-domain RUNS="cuhk icfg": what was trained on against what was tested, from experiments, branches or commits.
# make docs: the site, in docs/_build/html; a warning is an error.
# make pr-comment BASE=origin/main: what changed against that revision, as Markdown for a pull request.
# Each makes the virtual environment when it is missing or older than what it is made from.
PYTHON ?= python3
JOBS ?= 1
BASE ?= origin/main
# Columns of `dvc exp show` that would bury the others: code, data, intervals, counts, lesser figures. No parameter is among them.
CLUTTER := Created|hpl/|stages/|data/|reports/|others\.|datasets\.|gain_over_zero_shot|composed\.(picture|sentence|gain_over)|.*(_ci_|num_(queries|skipped|known|unknown)|rank5|rank10|mINP|rsum)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: docs repro test test-all check exp experiments ablation cross-domain pr-comment chromium
repro: .venv/.installed
	dvc repro
test: .venv/.installed
	python -m pytest -m "not slow"
test-all: .venv/.installed chromium
	python -m pytest
check: .venv/.installed
	python -m hpl.config
exp: .venv/.installed
	python -m hpl.config $(S)
	dvc exp run $(addprefix -S ,$(S))
experiments: .venv/.installed
	@dvc exp show --only-changed --md --drop '$(CLUTTER)'
ablation: .venv/.installed
	ablation/run $(JOBS)
cross-domain: .venv/.installed
	@python -m hpl.reports.cross_domain $(RUNS)
pr-comment: .venv/.installed
	@python -m hpl.reports.pull_request $(BASE)

docs: .venv/.installed
	.venv/bin/pip install --quiet -c constraints.txt -e '.[docs]'
	python -m sphinx -q -W --keep-going -n -j auto docs docs/_build/html

# The report's page is tried in a browser; where none can be had, those tests say that they are skipped.
chromium:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
		echo "no chromium: the report's page is not tried in a browser"

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version) found; expected Python >= 3.11 (make PYTHON=python3.12 ...)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "Python has no venv module; installing Debian's python3-venv"; S=$$(test "$$(id -u)" = 0 || echo sudo); $$S apt-get update -qq && $$S apt-get install -y python3-venv; }
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -c constraints.txt -e '.[test]'
	touch $@
