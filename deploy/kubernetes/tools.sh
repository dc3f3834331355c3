#!/usr/bin/env bash
# Installs the tools that check deploy/ into .tools/deploy; safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3.11}
tools=.tools/deploy
if ! cmp --silent deploy/kubernetes/tools.txt "$tools/installed.txt"; then
  [ -x "$tools/bin/python" ] || "$python" -m venv "$tools"
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$tools/bin/python" -m pip install --quiet \
    --requirement deploy/kubernetes/tools.txt
  cp deploy/kubernetes/tools.txt "$tools/installed.txt"
fi
# promtool and prometheus come from Debian or Ubuntu; elsewhere, and without rights, install them by hand.
if ! command -v promtool prometheus >/dev/null; then
  { apt-get update -q && apt-get install -qy --no-install-recommends prometheus; } ||
    echo "tools: promtool and prometheus could not be installed" >&2
fi
