# `make` lists the targets; what they do stands in scripts/ and simulator/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
INVENTORY ?= inventory/simulated_1p1d
SCENARIO ?=

.PHONY: help demo demo-down simulate test test-quick lint unit molecule conformance bench build bundle docs docsite venv docker images clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## the guide's 1P1D rollout on three simulated servers, from nothing to an answer
	@python3 scripts/demo.py

demo-down: ## remove what the demo made: servers, network, volumes (the Docker Engine and cached images stay)
	@python3 scripts/demo.py --down

simulate: ## servers for any inventory: make simulate INVENTORY=inventory/guide_1p1d
	@scripts/venv requirements.txt simulator/requirements.txt
	@scripts/docker_engine
	@simulator/sim up --inventory $(INVENTORY)

test: venv docker images ## lint, unit tests, Molecule
	@scripts/tests.py --fresh lint unit molecule

test-quick: venv docker images ## lint, unit tests, one rollout: what to run before each commit
	@scripts/tests.py --fresh --quick lint unit molecule --scenario=rollout

lint: venv ## ansible-lint, ansible-test sanity, yamllint, ruff, mypy, vermin, shellcheck
	@scripts/tests.py lint

unit: venv ## pytest: planner, filters, modules, simulator
	@scripts/tests.py unit

molecule: venv docker images ## all scenarios, or one: make molecule SCENARIO=docker
	@scripts/tests.py molecule $(addprefix --scenario=,$(SCENARIO))

conformance: venv ## launch scripts and the simulated engine against the real parser of vLLM
	@scripts/tests.py conformance

bench: venv docker images ## figures, printed and written to build/bench.json
	@.venv/bin/python scripts/bench

build: venv ## the collection as a tarball in build/
	@.venv/bin/ansible-galaxy collection build --force --output-path build

bundle: venv ## all that a site without a network needs: make bundle IMAGE=vllm-ascend.tar WEIGHTS=DIR AISBENCH=DIR PYTHON=3.11
	@.venv/bin/python scripts/bundle.py $(addprefix --image=,$(IMAGE)) $(addprefix --weights=,$(WEIGHTS)) $(addprefix --aisbench=,$(AISBENCH)) $(addprefix --python=,$(PYTHON)) $(addprefix --requirements=,$(REQUIREMENTS))

docs: venv ## what is generated in docs/ and README.md: rules, variables, releases, checks, faults, lists, the diagram
	@scripts/docs

docsite: venv ## the reference of all roles and plugins as HTML, in build/docsite
	@scripts/docsite

venv: ## .venv with everything for work on the collection
	@scripts/venv requirements-dev.txt

docker: ## find a Docker Engine, or install one
	@scripts/docker_engine

images: venv docker ## the simulator's images, once
	@simulator/sim images

clean: ## remove all of this checkout: servers, images, .venv, results
	@if [ -e .venv ] && docker version > /dev/null 2>&1; then simulator/sim down --all; simulator/sim images --prune; fi
	@rm -rf .venv .sim .cache build plans
