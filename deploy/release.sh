#!/usr/bin/env bash
# Builds wheel and sdist of what is committed, checks them, and uses each in a fresh environment.
#   deploy/release.sh [FOLDER]   leaves them in FOLDER, build/release by default
# Then, by hand: git tag -a vX.Y.Z, git push --tags, twine upload FOLDER/*.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/release}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

refuse() { echo "release: $*" >&2; exit 1; }
[ -z "$(git status --porcelain)" ] || refuse "commit or stash what git status shows first"
grep -q "^__version__ = \"$version\"" beam_flowers/__init__.py || refuse "__version__ is not $version"
grep -q "^## $version ([0-9-]*)$" CHANGELOG.md || refuse "CHANGELOG.md has no section '## $version (date)'"
[ -z "$(ls "$folder" 2>/dev/null)" ] || refuse "$folder is not empty"

python3 -m venv "$scratch/tools"
"$scratch/tools/bin/pip" install -q build twine griffe
# From a clone, so that no file that git ignores gets in.
git clone -q . "$scratch/source"
"$scratch/tools/bin/python" -m build --outdir "$folder" "$scratch/source" >"$scratch/log" || {
  cat "$scratch/log"
  exit 1
}
"$scratch/tools/bin/twine" check --strict "$folder"/*
"$scratch/tools/bin/python" deploy/check_api.py
for file in "$folder"/*; do
  rm -rf "$scratch/use"
  python3 -m venv "$scratch/use"
  "$scratch/use/bin/pip" install -q "$file"
  (cd "$scratch" && use/bin/beam-flowers demo --folder "$scratch/demo-$(basename "$file")" >/dev/null)
  echo "release: $(basename "$file") installs, and its demo runs"
done
