#!/usr/bin/env bash
# Makes .venv, or brings it up to date: the package itself (editable) with everything that the demo, the tests,
# the linters and the benchmarks need, at the versions in constraints.txt. Returns at once when nothing has changed.
#
#   PYTHON       the interpreter to make it with (default: python3)
#   TORCH_INDEX  the package index to take torch from, for example https://download.pytorch.org/whl/cpu
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Written last: without it .venv was never finished, and is made anew.
stamp=.venv/.complete
inputs=$(cat pyproject.toml constraints.txt scripts/venv.sh | cksum)
made_in="" made_with="" made_from="" made_of=""
if [ -f "$stamp" ] && [ -x .venv/bin/python ]; then
  { read -r made_in; read -r made_with; read -r made_from; read -r made_of; } <"$stamp" || true
fi
python=${PYTHON:-${made_with:-python3}}
torch_index=${TORCH_INDEX:-$made_from}

# A virtual environment can be neither moved nor turned into one of another Python or another build of torch.
if [ "$made_in" = "$PWD" ] && [ "$made_with" = "$python" ] && [ "$made_from" = "$torch_index" ]; then
  [ "$made_of" != "$inputs" ] || exit 0
  is_new=false
else
  is_new=true
fi

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 1
}

if $is_new; then
  wanted="Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..."
  command -v "$python" >/dev/null || fail "there is no '$python'. $wanted"
  version=$("$python" -c 'import platform; print(platform.python_version())') || true
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && [ -n "$version" ] ||
    fail "'$python' is Python ${version:-of an unknown version}. $wanted"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "'$python' cannot make virtual environments (on Debian and Ubuntu: apt-get install python3-venv)"
  rm -f "$stamp"
  echo "Making .venv with Python $version: some minutes the first time"
  "$python" -m venv --clear .venv
else
  rm -f "$stamp"
  echo "Bringing .venv up to date"
fi

quiet=""
[ -t 1 ] || quiet="--quiet"
pip() {
  .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"
}
if [ -n "$torch_index" ]; then
  pip install $quiet --no-deps --constraint constraints.txt --index-url "$torch_index" torch
fi
pip install $quiet --constraint constraints.txt --editable ".[dev]"
pip check

printf '%s\n' "$PWD" "$python" "$torch_index" "$inputs" >"$stamp.new"
mv "$stamp.new" "$stamp"
