#!/bin/sh
# Run every notebook from top to bottom and compare every output, in directories of its own; nothing may be left behind.
set -eu
cd "$(dirname "$0")"
base=$(mktemp -d "/dev/shm/labhub-notebooks.XXXXXX")
trap 'rm -rf "$base"' EXIT
mkdir -m 700 "$base/shm" "$base/run" "$base/data" "$base/config"
export LABHUB_SHM_DIR="$base/shm" LABHUB_RUNTIME_DIR="$base/run" LABHUB_DATA_DIR="$base/data" LABHUB_CONFIG_DIR="$base/config"
# The plot style of whoever runs this must not matter.
export MPLCONFIGDIR="$base/data"

python -m pytest --nbval --nbval-sanitize-with nbval_sanitize.cfg --nbval-cell-timeout 60 -p no:cacheprovider "$@" ./*.ipynb

left=$(find "$base/shm" "$base/run" -type f)
if [ -n "$left" ]; then
    echo "the notebooks left behind: $left" >&2
    exit 1
fi
