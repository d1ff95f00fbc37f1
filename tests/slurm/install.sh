#!/bin/sh
# Installs Slurm and munge for the tests, from Debian's own packages. Nothing to do where they are there already.
set -eu
have() { command -v "$1" >/dev/null 2>&1; }
if have slurmctld && have slurmd && have munged && have sbatch; then exit 0; fi
cannot() { echo "tests/slurm/install.sh: cannot install Slurm: $1; the Slurm tests will be skipped" >&2; exit 3; }
have apt-get || cannot "this is no Debian (no apt-get)"
[ "$(id -u)" = 0 ] || cannot "not root (run: sudo apt-get install slurm-wlm slurm-wlm-basic-plugins munge)"
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends slurm-wlm slurm-wlm-basic-plugins munge >"$log" 2>&1; }
log=$(mktemp)
install || { apt-get update >"$log" 2>&1 && install; } || { tail -5 "$log" >&2; cannot "apt-get failed (log: $log)"; }
rm -f "$log"
