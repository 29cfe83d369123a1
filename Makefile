# Everything a developer or CI runs. Each target sets up what it needs; nothing has to be installed beforehand but
# Python 3.11 or later (with venv) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# How many processes `make unit` and `make test` run the tests in: a number, or auto for one a core, and for `make test`
# half as many again.
WORKERS ?= auto
PROTOS := $(wildcard proto/cospan/rpc/v1/*.proto)
PIP_FLAGS := --quiet --disable-pip-version-check
# Python keeps what it compiles: otherwise every process of the tests compiles its modules again, seconds each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo simulate-real unit test e2e browser-test node-test mlflow-test deep-test ray-test metrics-test proxy-test mqtt-test feed-test helm-test slurm-test swarm-test engines-test kubernetes-test faults simulate mutants model soak fuzz bench bench-peers base-image check glossary protos check-protos notation reference docs newcomer-test figures readme-pictures state-table cli-reference site wheel-test clean

help:  ## Show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/ready  ## Run the main job: 25 real microgrids learn together
	@$(BIN)/cospan run microgrids --agents 25 --rounds 730 --seed 1

unit: $(VENV)/ready  ## Run the tests that need no sockets and no other processes (a minute); `make test` also checks shapes in them
	@SHAPE_CHECKS=0 $(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 8 --dist worksteal tests/property tests/unit tests/golden

test: $(VENV)/ready  ## Run the tests (with a Docker engine those in containers too), and check the coverage
	@rm -f .coverage .coverage.*
	@tests/everything.sh $(BIN) $(WORKERS)

e2e: $(VENV)/ready-e2e  ## Run the tests in containers: build the image, start fleets, break them
	@$(BIN)/python -m pytest -q tests/e2e

metrics-test: $(VENV)/ready  ## Have a real Prometheus check its configuration, scrape a live run, and answer the board's queries
	@if .ci/ensure-prometheus > /dev/null; then $(BIN)/python -m pytest -q tests/observability; else \
	  echo "left out: the tests with Prometheus, for its programs cannot be had; install it, then: make metrics-test"; fi

mqtt-test: $(VENV)/ready  ## Take the steps of agents from a real MQTT broker, mosquitto
	@if .ci/ensure-mosquitto > /dev/null; then $(BIN)/python -m pytest -q tests/mqtt; else \
	  echo "left out: the tests with mosquitto, for it cannot be had; install it, then: make mqtt-test"; fi

feed-test: $(VENV)/ready  ## Kill agents and loops of live feeds: WAYS=http,unix,mqtt, SECONDS=120 each
	@PYTHONPATH=tests $(BIN)/python -m feeding $(if $(WAYS),--ways $(WAYS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

proxy-test: $(VENV)/ready  ## Look at the dashboard through a real nginx, under a path and with its buffers
	@if .ci/ensure-nginx > /dev/null; then $(BIN)/python -m pytest -q tests/proxy; else \
	  echo "left out: the tests with nginx, for it cannot be had; install it, then: make proxy-test"; fi

browser-test: $(VENV)/ready-browser site build/browser/ready  ## Look at the dashboard and the home page of the site in a real Chromium, which it installs where it may; pictures in build/screenshots
	@$(BIN)/python -m pytest -q tests/browser

node-test: $(VENV)/ready  ## Have the agent for Node.js learn beside Python agents; installs its two packages
	@.ci/ensure-node && npm --prefix examples/agent-node ci --silent --no-audit --no-fund --ignore-scripts
	@$(BIN)/python -m pytest -q tests/node

helm-test: $(VENV)/ready-helm  ## Check the Helm chart: lint, rendered files, schemas of Kubernetes 1.27 to 1.37 and of custom resources (half a minute)
	@if .ci/ensure-helm > /dev/null; then $(BIN)/python -m pytest -q tests/helm; else \
	  echo "left out: the tests of the Helm chart, for Helm cannot be had; install it, then: make helm-test"; fi

slurm-test: $(VENV)/ready  ## Kill nodes of a real Slurm of four nodes on this machine (root; Debian's packages of Slurm; two minutes)
	@if .ci/ensure-slurm > /dev/null; then $(BIN)/python -m pytest -q tests/slurm; else \
	  echo "left out: the tests of Slurm, for its programs cannot be had; install them, then: make slurm-test"; fi

swarm-test: $(VENV)/ready-e2e  ## Kill and drain machines of a real Docker Swarm of three network namespaces (root; some minutes)
	@if .ci/ensure-docker > /dev/null; then $(BIN)/python -m pytest -q tests/swarm; else \
	  echo "left out: the tests of Docker Swarm, for Docker's engine cannot be had; start one, then: make swarm-test"; fi

# They mostly wait: for nodes to be given up, and groups to be started elsewhere.
engines-test: $(VENV)/ready-e2e .venv-ray/ready  ## Kill nodes of a real Swarm, Slurm and Ray at the same time: `swarm-test`, `slurm-test` and `ray-test` (root; six minutes)
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target swarm-test slurm-test ray-test

kubernetes-test: $(VENV)/ready-e2e $(VENV)/ready-helm  ## Kill, drain and upgrade on a real Kubernetes 1.20 of three network namespaces (root); builds it once, in ten minutes of a core
	@if .ci/ensure-docker > /dev/null && .ci/ensure-helm > /dev/null && .ci/ensure-kubernetes > /dev/null; then $(BIN)/python -m pytest -q -rP tests/kube_cluster; else \
	  echo "left out: the tests of Kubernetes, for its programs cannot be had"; fi

mlflow-test: .venv-mlflow/ready  ## Track a run with MLflow and have MLflow read it back; installs it in an environment of its own
	@.venv-mlflow/bin/python -m pytest -q tests/unit/cli/tracking/test_mlflow_sink.py

deep-test: .venv-deep/ready  ## Test the control experiments with JAX, which it installs in an environment of its own
	@.venv-deep/bin/python -m pytest -q tests/deep

ray-test: .venv-ray/ready  ## Kill a node of a real Ray cluster of three nodes on this machine; installs Ray in an environment of its own
	@.venv-ray/bin/python -m pytest -q tests/ray_cluster

faults: $(VENV)/ready-e2e  ## Break fleets from a seed: SEED=n, PARTS=kills,mixed,state-lost,resume,hostile,sockets,containers, SECURE=1 (25 minutes)
	@PYTHONPATH=tests $(BIN)/python -m faults $(if $(SEED),--seed $(SEED)) $(if $(PARTS),--parts $(PARTS)) $(if $(SECURE),--secure)

simulate: $(VENV)/ready  ## Play runs with faults under a virtual clock: SEED=n, SEEDS=1000 (a minute)
	@cd tests && ../$(BIN)/python -m simulator $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS))

simulate-real: $(VENV)/ready  ## The same scripts in the simulator and with real processes; both must end alike: SEED=n, SEEDS=100 (minutes)
	@cd tests && OPENBLAS_NUM_THREADS=1 ../$(BIN)/python -m simulator.alike $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS))

mutants: $(VENV)/ready  ## Plant faults in the machines one at a time; which do simulated runs find? SEEDS=1000 (an hour or two)
	@cd tests && ../$(BIN)/python -m simulator.mutants $(if $(SEEDS),--seeds $(SEEDS)) $(if $(PLAYS),--plays $(PLAYS)) $(if $(ONLY),--only $(ONLY))

model: $(VENV)/ready  ## Search all states of tiny runs, and with guards removed find what they are for: ONLY=0,1 (eight minutes)
	@cd tests && ../$(BIN)/python -m model $(if $(ONLY),--only $(ONLY))

soak: $(VENV)/ready  ## 100,000 rounds with 16 agents: the coordinator's memory and open files stay as they are
	@PYTHONPATH=tests $(BIN)/python -m faults.soak $(if $(ROUNDS),--rounds $(ROUNDS))

fuzz: $(VENV)/ready-fuzz  ## Hostile messages, files and streams from a seed: SEED=n, COUNT=1000000, PARTS=decoder,files,live
	@PYTHONPATH=tests $(BIN)/python -m fuzz $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT)) $(if $(PARTS),--parts $(PARTS))

bench: $(VENV)/ready  ## Run a short set of the benchmarks (some minutes); their numbers go to build/bench/
	@mkdir -p build/bench
	@for agents in 8 32; do for shape in "20 3" "1024 16"; do set -- $$shape; \
	  $(BIN)/cospan bench rounds --agents $$agents --feature-dim $$1 --rank $$2 --quiet \
	    --output build/bench/rounds-$$agents-$$1x$$2.json || exit 1; echo; done; done
	@$(BIN)/cospan bench orthonormalise --quiet --output build/bench/orthonormalise.json && echo
	@$(BIN)/cospan bench learner --quiet --output build/bench/learner.json && echo
	@$(BIN)/cospan bench encodings --quiet --output build/bench/encodings.json

bench-peers: $(VENV)/ready .venv-peers/ready  ## Measure Cospan beside Flower, Ray and MPI, which it installs (a quarter of an hour)
	@mkdir -p build/bench
	@$(BIN)/cospan bench peers --environment .venv-peers --quiet --output build/bench/peers.json

base-image:  ## Make cospan-base:local, to build the image on where no registry can be reached
	@deploy/make-base-image.sh cospan-base:local

check: $(VENV)/ready check-protos  ## Lint, type-check, check imports and generated code and pages
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/python docs/scripts/constants.py --check
	@$(BIN)/python docs/scripts/cli_reference.py --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python docs/scripts/state_table.py --check
	@$(BIN)/python docs/scripts/reference_tables.py --check
	@$(BIN)/python docs/scripts/performance_chart.py --check
	@$(BIN)/python docs/scripts/check_glossary.py

state-table: $(VENV)/ready  ## Write the coordinator's transitions into docs/architecture.md
	@$(BIN)/python docs/scripts/state_table.py

glossary: $(VENV)/ready  ## Report words that docs/glossary.md does not use, and phrases that the prose avoids
	@$(BIN)/python docs/scripts/check_glossary.py

protos: $(VENV)/ready .venv-protos/ready  ## Generate the protocol's Python code, and its page in docs/
	@$(call generate,proto)
	@$(call generate-page,docs/reference/protocol-messages.md)

cli-reference: $(VENV)/ready  ## Write docs/reference/cli.md from the commands
	@$(BIN)/python docs/scripts/cli_reference.py

notation: $(VENV)/ready  ## Write the tables of constants in docs/notation.md
	@$(BIN)/python docs/scripts/constants.py

reference: $(VENV)/ready  ## Write the tables of docs/reference/errors.md and metrics.md
	@$(BIN)/python docs/scripts/reference_tables.py

check-protos: $(VENV)/ready .venv-protos/ready
	@rm -rf build/protos && mkdir -p build/protos
	@$(call generate,build/protos)
	@for file in $$(cd build/protos && find . -type f); do \
	  cmp -s build/protos/$$file proto/$$file || { echo "proto/$$file is not what the .proto files give: run 'make protos'"; exit 1; }; done
	@$(call generate-page,build/protocol-messages.md)
	@cmp -s build/protocol-messages.md docs/reference/protocol-messages.md || \
	  { echo "docs/reference/protocol-messages.md is not what the .proto files give: run 'make protos'"; exit 1; }

docs: site  ## Build the documentation site into build/site, and run what its pages say to run
	@$(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 4 --dist worksteal tests/docs --ignore tests/docs/test_newcomer.py
	@echo "build/site/index.html"

newcomer-test: $(VENV)/ready-docs  ## Follow docs/start.md from a clone to a fleet of one's own, in an empty folder
	@$(BIN)/python -m pytest -q -rP tests/docs/test_newcomer.py

figures: $(VENV)/ready-docs  ## Draw the figures of docs/figures again
	@$(BIN)/python docs/scripts/performance_chart.py
	@PYTHONPATH=examples $(BIN)/python docs/scripts/figures.py

readme-pictures: $(VENV)/ready-docs $(VENV)/ready-browser build/browser/ready  ## Make the pictures of the README again, each from a real run
	@$(BIN)/python docs/scripts/readme_pictures.py

units: $(VENV)/ready  ## Print how far other units of rewards and features change what a fleet learns
	@$(BIN)/python docs/scripts/units.py

wheel-test: $(VENV)/ready  ## Build the wheel, and test it in a clean environment
	@tests/wheel.sh $(PYTHON)

clean:  ## Remove everything that make has made
	rm -rf $(VENV) .venv-protos .venv-peers .venv-mlflow .venv-deep .venv-ray build dist .coverage .coverage.* .*_cache

define generate
PATH="$(CURDIR)/.venv-protos/bin:$$PATH" python -m grpc_tools.protoc -Iproto --python_out=$(1) --mypy_out=quiet:$(1) $(PROTOS) && \
PATH="$(CURDIR)/.venv-protos/bin:$$PATH" python -m grpc_tools.protoc -Iproto --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) \
  proto/cospan/rpc/v1/coordinator_service.proto
endef

# The page of the protocol's messages, from the comments of the .proto files.
define generate-page
mkdir -p build && .venv-protos/bin/python -m grpc_tools.protoc -Iproto --include_source_info --include_imports \
  --descriptor_set_out=build/protos.binpb $(PROTOS) && $(BIN)/python docs/scripts/protocol_messages.py build/protos.binpb $(1)
endef

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Cospan needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V). Say which one to use: make PYTHON=python3.12 …"; exit 1; }
	@echo "setting up $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@$(BIN)/pip install $(PIP_FLAGS) --editable . --group test --group check
	@touch $@

$(VENV)/ready-e2e: $(VENV)/ready
	@$(BIN)/pip install $(PIP_FLAGS) --group e2e
	@touch $@

$(VENV)/ready-browser: $(VENV)/ready
	@$(BIN)/pip install $(PIP_FLAGS) --group browser
	@touch $@

# Builds the site where a file that it shows or links to is newer.
site: $(VENV)/ready-docs
	@if [ ! -e build/site-ready ] || [ -n "$$(find mkdocs.yml *.md docs examples deploy tests proto common server client \
	  relay dashboard lab cli -newer build/site-ready -type f -not -name '*.pyc' -not -path '*/node_modules/*' -print -quit)" ]; then \
	  NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build && touch build/site-ready; fi

build/browser/ready: tests/browser/set-up.sh
	@tests/browser/set-up.sh build/browser
	@touch $@

$(VENV)/ready-docs: $(VENV)/ready
	@$(BIN)/pip install $(PIP_FLAGS) --group docs
	@touch $@

$(VENV)/ready-helm: $(VENV)/ready
	@$(BIN)/pip install $(PIP_FLAGS) --group helm
	@touch $@

$(VENV)/ready-fuzz: $(VENV)/ready
	@$(BIN)/pip install $(PIP_FLAGS) --group fuzz
	@touch $@

.venv-protos/ready: pyproject.toml | $(VENV)/ready
	@$(PYTHON) -m venv --without-pip .venv-protos
	@$(BIN)/pip --python .venv-protos/bin/python install $(PIP_FLAGS) --group protos
	@touch $@

.venv-peers/ready: pyproject.toml
	@echo "setting up .venv-peers …"
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@.venv-peers/bin/pip install $(PIP_FLAGS) --editable . --group bench-peers
	@touch $@

.venv-mlflow/ready: pyproject.toml
	@$(PYTHON) -m venv .venv-mlflow
	@.venv-mlflow/bin/pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@.venv-mlflow/bin/pip install $(PIP_FLAGS) --editable . --group mlflow-test
	@touch $@

.venv-deep/ready: pyproject.toml
	@echo "setting up .venv-deep …"
	@$(PYTHON) -m venv .venv-deep
	@.venv-deep/bin/pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@.venv-deep/bin/pip install $(PIP_FLAGS) --editable . --group deep-test
	@touch $@

.venv-ray/ready: pyproject.toml
	@echo "setting up .venv-ray …"
	@$(PYTHON) -m venv .venv-ray
	@.venv-ray/bin/pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@.venv-ray/bin/pip install $(PIP_FLAGS) --editable . --group ray-test
	@touch $@
