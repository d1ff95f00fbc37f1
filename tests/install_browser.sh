#!/bin/sh
# Installs Chromium for the report's tests, from Debian's own package. Nothing to do where a browser is there already.
set -eu
have() { command -v "$1" >/dev/null 2>&1; }
if have chromium || have chromium-browser || have google-chrome; then exit 0; fi
cannot() { echo "tests/install_browser.sh: cannot install Chromium: $1; the browser tests will be skipped" >&2; exit 3; }
have apt-get || cannot "this is no Debian (no apt-get)"
[ "$(id -u)" = 0 ] || cannot "not root (run: sudo apt-get install chromium)"
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends chromium >"$log" 2>&1; }
log=$(mktemp)
install || { apt-get update >"$log" 2>&1 && install; } || { tail -5 "$log" >&2; cannot "apt-get failed (log: $log)"; }
rm -f "$log"
