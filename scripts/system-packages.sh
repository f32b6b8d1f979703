#!/usr/bin/env bash
# Installs the Debian packages that tests with windows need: a virtual screen, and the libraries that Qt loads.
# Does nothing where all are there. Where it may not install, it says what is missing and goes on: all tests
# that need no screen run all the same.
set -euo pipefail

packages=(
  xvfb xauth fonts-dejavu-core libegl1 libgl1 libglib2.0-0 libfontconfig1 libdbus-1-3 libxkbcommon-x11-0
  libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0
)

[ "$(uname -s)" = Linux ] || exit 0 # macOS has a screen of its own
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  command -v xvfb-run >/dev/null || cat >&2 <<MESSAGE
note: this system has no apt, so nothing was installed. Tests that open windows need xvfb-run and the libraries
      that Qt loads; Debian calls them: ${packages[*]}
MESSAGE
  exit 0
fi

# Newer releases call some of them ...t64.
installed=" $(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | tr '\n' ' ')"
missing=()
for package in "${packages[@]}"; do
  case "$installed" in
    *" $package "* | *" ${package}t64 "*) ;;
    *) missing+=("$package") ;;
  esac
done
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ]; then
  as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root=(sudo -n)
else
  cat >&2 <<MESSAGE
note: these system packages are missing, and installing them takes root or sudo without a password:
        sudo apt-get install --no-install-recommends ${missing[*]}
      Tests that open windows fail without them; everything else runs.
MESSAGE
  exit 0
fi

echo "Installing system packages: ${missing[*]}"
apt=("${as_root[@]+"${as_root[@]}"}" env DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 -o DPkg::Lock::Timeout=120)
"${apt[@]}" update </dev/null
"${apt[@]}" install --yes --no-install-recommends "${missing[@]}" </dev/null >/dev/null
