#!/usr/bin/env bash
# Makes .venv with everything: the orchestrator, the real tritonserver, the models' frameworks, the
# tools. Works on Debian and Ubuntu with Python 3.11; safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3.11}

command -v "$python" >/dev/null || { echo "install: $python not found; install Python 3.11" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
  { echo "install: expected Python 3.11, $python is $("$python" --version)" >&2; exit 1; }

[ -x .venv/bin/pip ] || "$python" -m venv .venv ||
  { echo "install: no venv module; on Debian and Ubuntu: apt-get install python3.11-venv" >&2; exit 1; }
pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --quiet"

# Exact versions known to work together. setuptools and wheel come first: sam2 needs them.
$pip -r requirements.lock
# sam2 is a source package without build isolation metadata: it must see the torch just installed,
# and its CUDA extension (only hole filling) needs a compiler that most machines lack.
SAM2_BUILD_CUDA=0 $pip --no-build-isolation --no-deps sam2==1.1.0
# Its code runs with numpy 1.26; its metadata asks for numpy 2 and for a second OpenCV.
$pip --no-deps trackeval==1.3.0
$pip --no-build-isolation --no-deps --editable .

# The model processes of Triton are linked with libpython; some Pythons come without it.
.venv/bin/python - <<'PY' || { apt-get update -q && apt-get install -qy libpython3.11; }
import ctypes.util, pathlib, sys, sysconfig
beside = pathlib.Path(sysconfig.get_config_var("LIBDIR") or "", "libpython3.11.so.1.0")
sys.exit(not (beside.exists() or ctypes.util.find_library("python3.11")))
PY
touch .venv/.installed
