#!/usr/bin/env bash
# Builds the wheel and tries it as a user would: in a clean environment, from an empty folder.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/.venv/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work" "$root"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "$work"/cospan-*.whl
mkdir "$work/empty"
cd "$work/empty"
"$work/venv/bin/cospan" --version
"$work/venv/bin/cospan" run microgrids --agents 2 --rounds 20 --quiet
"$work/venv/bin/cospan" run queues --agents 2 --rounds 20 --in-process --json | "$work/venv/bin/python" -c \
  'import json, sys; result = json.load(sys.stdin); assert result["rounds"] == 20 and result["agents"] == 2, result'
"$work/venv/bin/cospan" reproduce > experiments
grep -q linear-speedup experiments
test -f runs/*microgrids/result.json
"$work/venv/bin/cospan" new cold-stores > /dev/null
(cd cold-stores && "$work/venv/bin/cospan" run cold_stores:workload --rounds 3 --in-process --quiet)
echo "the wheel works: $(ls "$work"/cospan-*.whl | xargs -n 1 basename)"
