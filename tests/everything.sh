#!/usr/bin/env bash
# What `make test` runs: the tests, the check of their coverage and, where a Docker engine answers, those in
# containers. The latter mostly wait for containers, so they run beside the others and their output follows at the end.
# Usage: tests/everything.sh VENV_BIN WORKERS
set -uo pipefail
bin=$1 workers=$2
if [ "$workers" = auto ]; then   # half as many again as cores: many of these tests wait for processes
  workers=$("$bin/python" -c 'import os; cores = os.cpu_count() or 1; print(cores + (cores + 1) // 2)')
fi
containers=
if docker info > /dev/null 2>&1; then
  make --no-print-directory .venv/ready-e2e || exit 1   # installs, so before any test imports
  mkdir -p build
  make --no-print-directory e2e > build/e2e.log 2>&1 &
  containers=$!
fi

failed=0
"$bin/python" -m pytest -q -n "$workers" --maxprocesses 8 --dist worksteal --cov --cov-report= &&
  "$bin/python" -m coverage report || failed=1

if [ -z "$containers" ]; then
  echo "left out: the tests in containers, for no Docker engine answers; start one, then: make e2e"
else
  echo "the tests in containers (build/e2e.log):"
  wait "$containers" || failed=1
  cat build/e2e.log
fi
exit "$failed"
