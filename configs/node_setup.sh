#!/usr/bin/env bash
# Sets up one node without Docker: a virtual environment with Murmuration, and a check that it works.
#
#   configs/node_setup.sh cpu        the head, and nodes without a GPU
#   configs/node_setup.sh gpu        nodes with an NVIDIA GPU (their driver is the machine's own)
#
# Needs Python 3.11 or later with venv. Run again, it updates. MURMURATION_VENV says where (default: ~/murmuration-venv).
set -euo pipefail

kind=${1:-cpu}
case $kind in cpu) extras=s3,otel ;; gpu) extras=s3,otel,gpu ;; *) echo "usage: $0 cpu|gpu" >&2; exit 2 ;; esac
source=$(cd "$(dirname "$0")/.." && pwd)
venv=${MURMURATION_VENV:-$HOME/murmuration-venv}

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed." >&2; exit 1; }
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --upgrade pip
"$venv/bin/pip" install --quiet "$source[$extras]"
"$venv/bin/python" - "$kind" <<'CHECK'
import sys

import ctranslate2
import deployments.app  # noqa: F401

gpus = ctranslate2.get_cuda_device_count()
print(f"Murmuration is installed; CTranslate2 sees {gpus} GPU(s).")
if sys.argv[1] == "gpu" and not gpus:
    sys.exit("This is to be a GPU node, but no GPU can be used: is the NVIDIA driver installed?")
CHECK
