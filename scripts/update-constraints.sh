#!/usr/bin/env bash
# Writes constraints.txt anew: the newest versions that pyproject.toml allows, as pip finds them today.
# Run the whole suite with the result before committing it.
#
#   PYTHON       the interpreter to resolve for (default: python3); use the oldest that is supported
#   TORCH        the version of torch (default: the one in constraints.txt); naming one keeps pip from taking the
#                newest, which may come as a CUDA build of several gigabytes
#   TORCH_INDEX  the package index to take torch from, for example https://download.pytorch.org/whl/cpu
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

torch=${TORCH:-$(sed -n 's/^torch==//p' constraints.txt)}
[ -n "$torch" ] || { echo "error: constraints.txt names no torch; say which: make constraints TORCH=2.13.0" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
pip() {
  "$work/venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}
if [ -n "${TORCH_INDEX:-}" ]; then
  pip install --quiet --no-deps --index-url "$TORCH_INDEX" "torch==$torch"
fi
pip install --quiet --editable ".[dev]" "torch==$torch"
pip check

# "torch==2.13.0" admits 2.13.0+cpu, but not the other way round; what a CUDA build brings along is left to it.
pip freeze --exclude-editable |
  sed -E 's/^(torch==[^+]+)\+.*/\1/' |
  grep -viE '^(nvidia|cuda|triton)[-_=]' >"$work/pins"
if grep -n ' @ ' "$work/pins" >&2; then
  echo "error: these come from a file or an address, not from an index" >&2
  exit 1
fi
{
  echo "# The versions with which this project was last seen green, for development and CI; users are bound only by the"
  echo "# lower bounds in pyproject.toml. Written by \`make constraints\` on $(date +%F) with Python $("$work/venv/bin/python" -c 'import platform; print(platform.python_version())')."
  cat "$work/pins"
} >"$work/constraints.txt"
cp "$work/constraints.txt" constraints.txt
echo "constraints.txt now holds $(wc -l <"$work/pins") versions"
