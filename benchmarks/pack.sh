#!/usr/bin/env bash
# Fills a folder with what a GPU machine without a network needs to run benchmarks/gpu.sh: the project's tracked files
# without docs/results, the project as a wheel, wheels of packages that the machine lacks, and source files of a data set.
#
#   benchmarks/pack.sh FOLDER [DATA]      in the project's root, with its virtual environment in .venv
#   LACKS="imbalanced-learn sklearn-compat"   packages to take along, in the versions that are installed here
#
# Then copy FOLDER to the machine, and there: bash FOLDER/benchmarks/gpu.sh
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
[ -f pyproject.toml ] && [ -d fer_bench ] || { echo "pack.sh: run it in the project's root" >&2; exit 2; }
.venv/bin/python -m pip --version >/dev/null || { echo "pack.sh: it needs pip in .venv; make setup" >&2; exit 2; }
folder=$1 data=${2:-}
[ -z "$data" ] || [ -d "$data" ] || { echo "pack.sh: there is no folder $data" >&2; exit 2; }
[ ! -e "$folder" ] || [ -f "$folder/benchmarks/gpu.sh" ] || { echo "pack.sh: $folder holds something else" >&2; exit 2; }

rm -rf "$folder"
mkdir -p "$folder/wheels"
git ls-files -z -- . ':!docs/results' | xargs -0 cp --parents --target-directory="$folder"
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
git ls-files -z -- . ':!docs' ':!tests' | xargs -0 cp --parents --target-directory="$built"  # building leaves folders behind
.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$folder/wheels" "$built"
for package in ${LACKS-imbalanced-learn sklearn-compat}; do
    version=$(.venv/bin/python -c "from importlib.metadata import version; print(version('$package'))")
    .venv/bin/python -m pip download --quiet --no-deps --only-binary=:all: --dest "$folder/wheels" "$package==$version"
done
[ -z "$data" ] || cp -r "$data" "$folder/data"
du -sh "$folder"
