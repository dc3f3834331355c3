#!/usr/bin/env bash
# Fetches perf_analyzer into .tools/perf_analyzer; safe to repeat. It comes from the wheel of the last
# tritonclient whose build runs with glibc 2.36, two libraries from the wheel of the server itself.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$PWD/.venv/bin/python
folder=.tools/perf_analyzer
if [ -x "$folder/perf_analyzer" ]; then exit 0; fi
mkdir -p "$folder"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --platform manylinux1_x86_64 --python-version 3.10 --dest "$folder" tritonclient==2.49.0
"$python" -m zipfile -e "$folder"/tritonclient-2.49.0-*.whl "$folder/wheel"
libraries=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/nvidia_pytriton.libs
ln -sf "$libraries"/libb64-*.so.0d "$folder/libb64.so.0d"
ln -sf "$libraries"/libcudart-*.so.12.* "$folder/libcudart.so.12"
install -m 755 "$folder/wheel/tritonclient-2.49.0.data/data/bin/perf_analyzer" "$folder/perf_analyzer"
rm -r "$folder/wheel" "$folder"/*.whl
