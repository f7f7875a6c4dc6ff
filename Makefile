# The front door. No logic here: `python -m common.study` does the work.
# Values given on the command line reach it through the environment, so neither make nor a shell interprets them.
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory --no-builtin-rules
override export PROJECT := $(value PROJECT)
override export SCALE := $(value SCALE)
override export LAUNCH := $(value LAUNCH)
override export ONLY := $(value ONLY)
override export SEEDS := $(value SEEDS)
override export TRACK := $(value TRACK)
override export ARGS := $(value ARGS)
override export YES := $(value YES)
override export SOURCE := $(value SOURCE)
override export PYTHON := $(value PYTHON)
override export SITE := $(value SITE)

STUDY = @set -f; exec .venv/bin/python -m common.study
OPTIONS = $(if $(PROJECT),--project "$$PROJECT") $(if $(SCALE),--scale "$$SCALE") \
	$(if $(LAUNCH),--launch "$$LAUNCH") $(if $(ONLY),--only "$$ONLY") $(if $(SEEDS),--seeds "$$SEEDS") \
	$(if $(TRACK),--track "$$TRACK") $(if $(YES),--yes) $(if $(ARGS),$$ARGS)
PYTEST = @exec .venv/bin/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup lock new plan launch-check reproduce repeat status why logs dashboard sync test test-reliability test-cluster test-containers container pbs lint bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18
	@echo 'Options: PROJECT=opirl  SCALE=smoke|laptop|workstation|paper  ARGS="section.key=value"  ONLY=stage,arm'
	@echo '         SEEDS=n  TRACK=live  LAUNCH=local|slurm|pbs|sge|abci3|tsubame4|...  (ARGS, ONLY and SEEDS never touch the committed results)'

setup:  ## create .venv from the hashed lock (Python 3.11 or 3.12; PYTHON=... names one)
	@python3 -I common/bootstrap.py $(if $(PYTHON),"$$PYTHON")

.venv/.ready: requirements/py311.txt requirements/py312.txt
	@python3 -I common/bootstrap.py $(if $(PYTHON),"$$PYTHON")

lock:  ## write requirements/py311.txt and py312.txt again from pyproject.toml (needs uv and the network)
	@for minor in 11 12; do uv pip compile pyproject.toml --group dev --group bench --python-version 3.$$minor \
		--python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --no-annotate --quiet -o requirements/py3$$minor.txt || exit 1; done

new: .venv/.ready  ## start a thesis: make new PROJECT=x
	$(STUDY) new $(OPTIONS)

plan: .venv/.ready  ## jobs, minutes, disk, replicates and power of a study; starts nothing
	$(STUDY) plan $(OPTIONS)

launch-check: .venv/.ready  ## job scripts of LAUNCH=<site> checked offline, node-hours and points; submits nothing
	$(STUDY) launch-check $(OPTIONS)

reproduce: .venv/.ready  ## run what is missing of a study, judge its claims, write its report
	$(STUDY) reproduce $(OPTIONS)

repeat: .venv/.ready  ## run one seed of every arm again (SEEDS=n: n seeds) and compare with the committed evidence
	$(STUDY) repeat $(OPTIONS)

status: .venv/.ready  ## done, running, failed and missing jobs
	$(STUDY) status $(OPTIONS)

why: .venv/.ready  ## why jobs would run again: the module, section, input or package that changed
	$(STUDY) why $(OPTIONS)

logs: .venv/.ready  ## the last failed job's traceback, and the command that debugs it alone
	$(STUDY) logs $(OPTIONS)

dashboard: .venv/.ready  ## a static site over all results, opens from disk
	$(STUDY) dashboard $(OPTIONS)

sync: .venv/.ready  ## upload the offline W&B runs
	$(STUDY) sync $(OPTIONS)

test: .venv/.ready  ## the test suite (under 10 minutes on 2 cores)
	$(PYTEST) -n 2 -m "not slow and not cluster and not containers"

test-reliability: .venv/.ready  ## twenty kills, and the slow rest
	$(PYTEST) -n 2 -m "slow and not cluster and not containers"

test-cluster: .venv/.ready  ## the launch layer on a real Slurm, Grid Engine, PBS and mpirun, where they are installed
	$(PYTEST) -m cluster -rs tests/cluster

test-containers: .venv/.ready  ## build, run and break an image with a real Apptainer, where one can be had
	$(PYTEST) -m "containers and not slow" -rs tests/containers

container: .venv/.ready  ## build the Apptainer image of a site: SITE=abci3; ARGS=--print shows how, ARGS=--help the rest
	@set -f; exec .venv/bin/python -m common.container $(if $(SITE),--site "$$SITE") $(if $(ARGS),$$ARGS)

pbs: .venv/.ready  ## build OpenPBS for test-cluster from a source tree: make pbs SOURCE=/path/to/openpbs
	@tests/cluster/pbs/build "$$SOURCE"

lint: .venv/.ready  ## ruff, types, import contracts, file lengths and documentation
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m basedpyright
	@.venv/bin/python -m basedpyright -p projects/pyrightconfig.json
	@.venv/bin/python .venv/bin/lint-imports --no-logo
	@.venv/bin/python -m common.lint

bench: .venv/.ready  ## ours against a peer or baseline, as ratios measured in one run
	@for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; \
		OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python "$$script" || exit 1; done

clean: .venv/.ready  ## list job folders that no current study names; YES=1 removes them
	$(STUDY) clean $(OPTIONS)
