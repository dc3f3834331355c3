#!/usr/bin/env bash
# Every static check, as people and CI run it.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=.venv/bin
$bin/ruff format --check .
$bin/ruff check .
$bin/mypy
$bin/lint-imports
# buf comes from npm; without npm the protos are still compiled and compared by the tests.
if command -v npm >/dev/null; then
  [ -x .tools/node_modules/.bin/buf ] || npm install --silent --prefix .tools @bufbuild/buf@1.75.0
  (cd protos && ../.tools/node_modules/.bin/buf lint)
else
  echo "lint: npm not found, buf lint not run" >&2
fi
