#!/usr/bin/env bash
# Writes what the image installs with the digests of its files, a list for each kind of machine:
# deploy/requirements-x86_64.txt and deploy/requirements-aarch64.txt. And what developers had when
# all tests passed, on Linux and Python 3.11: deploy/requirements-dev.txt.
#   deploy/lock.sh                                   needs uv and the network
#   EXTRAS="aws gcp" deploy/lock.sh                  for other extras than `aws`
#   CONSTRAINTS=/dev/null deploy/lock.sh             the newest of everything
set -euo pipefail
cd "$(dirname "$0")/.."

lock() { # $1 machine, $2 oldest glibc in the names of wheels, then further arguments of uv
  local machine=$1 manylinux=$2 extra
  shift 2
  for extra in ${EXTRAS:-aws}; do set -- "$@" --extra "$extra"; done
  uv pip compile pyproject.toml "$@" --constraint "${CONSTRAINTS:-deploy/constraints.txt}" \
    --python-version 3.11 --python-platform "$machine-manylinux_$manylinux" --only-binary :all: \
    --generate-hashes --no-annotate --quiet \
    --custom-compile-command deploy/lock.sh --output-file "deploy/requirements-$machine.txt"
}

# PyPI's `tensorflow` carries CUDA kernels that a CPU never calls. `tensorflow-cpu` is the same module
# without them; the Dockerfile answers for `tensorflow`, as other packages ask for it by name.
cpu=$(mktemp --suffix=.txt)
trap 'rm "$cpu"' EXIT
echo tensorflow-cpu >"$cpu"
lock x86_64 2_28 "$cpu" --no-emit-package tensorflow
# For other processors than Intel's there is `tensorflow` alone, and that without CUDA.
# OpenVINO's wheels for it want glibc 2.35; python:3.11-slim has a newer one.
lock aarch64 2_35

uv pip compile pyproject.toml --extra dev --extra aws --extra plots --python-version 3.11 \
  --no-annotate --quiet --custom-compile-command deploy/lock.sh --output-file deploy/requirements-dev.txt
