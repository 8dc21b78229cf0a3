#!/usr/bin/env bash
# Everything that has to be seen on a GPU, in one command of under ten minutes: the tests marked gpu, the harness beside
# a plain script (peers.py), and a study, which goes on where the last call stopped. Prints Markdown, and leaves it with
# the records and the report in OUT. It runs in a checkout with a virtual environment, or in a folder of pack.sh.
#
#   benchmarks/gpu.sh
#
# BUDGET=570     seconds for all of it              OUT=gpu-results   what comes back; the study's home is OUT/home
# DATASET        fer2013 where there are files for it (DATA=FOLDER, or data/ of pack.sh), otherwise synthetic
# METHODS, EPOCHS, SEEDS, JOBS, RECIPE, STUDY, EXTRA                  of fer-bench run; EXTRA holds more of its options
# PEERS, TIMM    options of peers.py, and the path of timm's train.py
# DEVICE=cuda    cpu tries the script itself
set -uo pipefail

cd "$(dirname "$0")/.." || exit 2
out=${OUT:-gpu-results} device=${DEVICE:-cuda} budget=${BUDGET:-570} study=${STUDY:-gpu}
mkdir -p "$out"
out=$(cd "$out" && pwd)
home=$out/home
left() { echo $((budget - SECONDS)); }
at_most() { # seconds of a part, and its command; what is left of the budget bounds it too
    local limit=$1
    shift
    [ "$limit" -lt "$(left)" ] || limit=$(left)
    [ "$limit" -gt 0 ] || { echo "no time was left for this"; return 0; }
    timeout --signal=INT --kill-after=20 "$limit" "$@"
    local code=$?
    [ $code -ne 124 ] || echo "(stopped after $limit s)"
    return $code
}
part() { printf '\n## %s\n\n' "$1"; }
fenced() { printf '```text\n'; cat; printf '```\n'; }

python=python3
[ ! -x .venv/bin/python ] || python=$PWD/.venv/bin/python
if [ -d wheels ]; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" wheels/*.whl || exit 1
    export PYTHONPATH=$site
fi
export PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$out/compiled}
fer_bench() { "$python" -P -m fer_bench "$@"; }

prepare() { # the data set of the study: its name
    local data=${DATA:-data} name=${DATASET:-}
    [ -n "$name" ] || { [ -e "$data" ] && name=fer2013 || name=synthetic; }
    local from=()
    [ "$name" = synthetic ] || [ ! -e "$data" ] || from=(--from "$data")
    fer_bench data prepare "$name" "${from[@]}" --home "$home" >"$out/data.txt" 2>&1 || return 1
    echo "$name"
}

machine() {
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null
    "$python" -P - <<'P'
import os

import timm
import torch

print(f"torch {torch.__version__}, timm {timm.__version__}, CUDA {torch.version.cuda}, {os.cpu_count()} cores")
print(f"a CUDA device is {'' if torch.cuda.is_available() else 'not '}available")
P
}

marked() {
    local files
    mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
    at_most 150 "$python" -P -m pytest -q -m gpu -p no:cacheprovider --import-mode=importlib "${files[@]}" 2>&1 | tail -n 25
}

runs() { # a row for each finished run
    "$python" -P - "$home/ledger" <<'P'
import json
import statistics
import sys
from pathlib import Path

print("| run | seed | seconds | images/s, median epoch |\n| --- | ---: | ---: | ---: |")
for done in sorted(Path(sys.argv[1]).glob("*/done.json")):
    spec, timing = (json.loads((done.parent / f"{name}.json").read_bytes()) for name in ("spec", "timing"))
    speeds = timing["images_per_second"]
    speed = f"{statistics.median(speeds):,.0f}" if speeds else "-"
    print(f"| {spec['label']} | {spec['spec']['seed']} | {timing['total_seconds']:.0f} | {speed} |")
P
}

train() {
    local command=(run ${METHODS:-baseline_resnet rasn baseline_focal baseline_oversample} --dataset "$1" --name "$study")
    command+=(--recipe "${RECIPE:-full}" --epochs "${EPOCHS:-20}" --seeds "${SEEDS:-3}" --jobs "${JOBS:-4}")
    command+=(--device "$device" --home "$home" --no-track --quiet ${EXTRA:-})
    printf 'The same call again goes on where this one stopped: `fer-bench %s`\n\n' "${command[*]}"
    at_most $(($(left) - 45)) "$python" -P -m fer_bench "${command[@]}" 2>&1 | tail -n 5 | fenced
}

everything() {
    printf '# On a GPU\n\n'
    machine 2>&1 | fenced
    part "Tests marked gpu"
    marked | fenced
    part "Beside a plain script"
    at_most "${PEERS_SECONDS:-180}" "$python" benchmarks/peers.py --device "$device" \
        ${TIMM:+--timm "$TIMM"} ${PEERS---images 28672 --val 3584 --epochs 4 --rounds 2} 2>"$out/peers.log"
    part "Study"
    local dataset
    if dataset=$(prepare); then
        train "$dataset"
        printf '\n'
        runs
        fer_bench report "$study" --home "$home" >"$out/report.log" 2>&1 || printf '\nNo report yet.\n'
    else
        echo "The data could not be prepared:"
        tail -n 8 "$out/data.txt" | fenced
    fi
    printf '\n%d seconds in all.\n' "$SECONDS"
}

everything | tee "$out/gpu.md"
