#!/usr/bin/env bash
# Builds the image without a Docker engine and proves it: its size, what must not be in it, `demo`,
# and a pipeline on Prism whose workers are a container in worker-pool mode, all with no network.
#   deploy/container-test.sh      as root on Debian or Ubuntu, with Go 1.23 or newer
# The two bases are stand-ins: Debian with Python for python:3.11-slim, and Beam's boot program built
# from its source for Beam's image. They, the tools and the layers (8 GB) stay in $CACHE for the next
# time; nothing else is left behind. Buildah's own storage, with whatever it has, is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."
export CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/beam-flowers-container}
export BUILDAH_ISOLATION=chroot GOBIN=$CACHE/bin
beam_version=$(sed -n 's/^ARG BEAM_VERSION=//p' Dockerfile)
python_base=docker.io/library/python:3.11-slim
beam_base=docker.io/apache/beam_python3.11_sdk:$beam_version
image=localhost/beam-flowers
scratch=$(mktemp -d)
started=()
container=

finish() {
  local code=$?
  for group in "${started[@]}"; do kill -- "-$group" 2>/dev/null || true; done
  [ -z "$container" ] || images rm "$container" >/dev/null || true # It has mounts below $scratch.
  rm -rf "$scratch"
  if [ $code = 0 ]; then echo "PASS: $1, $SECONDS s"; else echo "FAIL: $1, exit code $code after $SECONDS s"; fi
}
say() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
fail() { echo "FAIL: $1" >&2; exit 1; }
images() { buildah --root "$CACHE/storage" --runroot "$CACHE/run" "$@"; }
there() { images images -q "$1" >/dev/null 2>&1; }

# Part one, with a network: tools, bases, the image.

tools() {
  [ "$(id -u)" = 0 ] || fail "run it as root: debootstrap and chroot need it"
  command -v go >/dev/null || fail "no Go on the PATH (https://go.dev/dl): it builds Prism and the boot program"
  if ! command -v buildah >/dev/null || ! command -v debootstrap >/dev/null || ! command -v ip >/dev/null; then
    apt-get update -q && apt-get install -q -y --no-install-recommends buildah debootstrap iproute2
  fi
  [ -x "$GOBIN/prism" ] || go install "github.com/apache/beam/sdks/v2/go/cmd/prism@v$beam_version"
  [ -x "$GOBIN/container" ] \
    || CGO_ENABLED=0 go install "github.com/apache/beam/sdks/v2/python/container@v$beam_version"
}

python_stand_in() { # Debian with what python:3.11-slim has
  local base root
  base=$(images from scratch)
  root=$(images mount "$base")
  debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
    bookworm "$root" >"$scratch/debootstrap.log" || { tail "$scratch/debootstrap.log"; return 1; }
  rm -rf "$root"/usr/lib/python3*/EXTERNALLY-MANAGED "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
  # The machine may have to trust a proxy of its own.
  cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
  images config --env PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$base"
  images commit --quiet --rm "$base" "$python_base" >/dev/null
}

beam_stand_in() {
  local base
  base=$(images from scratch)
  images copy --quiet "$base" "$GOBIN/container" /opt/apache/beam/boot >/dev/null
  images commit --quiet --rm "$base" "$beam_base" >/dev/null
}

build() {
  trap 'finish "the container"' EXIT
  mkdir -p "$CACHE"
  say "tools" && tools
  say "bases"
  there "$python_base" || python_stand_in
  there "$beam_base" || beam_stand_in
  say "build"
  images bud --pull-never --layers --tag "$image" . >"$scratch/build.log" 2>&1 \
    || { tail -40 "$scratch/build.log"; fail "the build"; }
}

# Part two, in a network of its own that has loopback only: nothing can be downloaded, and no port
# is taken.

in_image() { # runs the image's entry point as the image's user
  local entry
  entry=$(images inspect --format '{{index .OCIv1.Config.Entrypoint 0}}' "$container")
  images run --volume "$PWD/beam_flowers/data/flowers:/photos:ro" --volume "$scratch/shared:/shared" \
    "$container" -- "$entry" "$@"
}
shell() { in_image sh -c "$1"; }
background() { # $1 log, the rest a command: in the background, in a group of its own
  local log=$1; shift
  set -m
  "$@" >"$log" 2>&1 </dev/null &
  started+=($!)
  set +m
}
await() { # $1 port, $2 log of what should listen there
  for _ in $(seq 300); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
    sleep 0.2
  done
  tail -20 "$2" >&2; fail "nothing listens on port $1 after a minute"
}

check_content() {
  local root
  shell 'test "$(id -u)" = 1000' || fail "the image runs as root"
  for tool in gcc g++ cc c++ clang ld make cargo; do
    shell "! command -v $tool" || fail "$tool is in the image"
  done
  shell '! find / -xdev \( -path "*/.cache/pip" -o -name "*_Packages" -o -path /build \) 2>/dev/null | grep .' \
    || fail "caches are left in the image"
  shell 'pip check && beam-flowers backbones'
  root=$(images mount "$container")
  echo "size: $(du -smx "$root" | cut -f1) MB, of it $(du -smx "$root/opt" | cut -f1) MB in /opt"
}

check_demo() {
  in_image demo --folder /shared/demo | tee "$scratch/demo.log"
  grep -q '^\(18\|19\|20\) of 20 carry' "$scratch/demo.log" || fail "demo's labels"
}

on_prism() {
  in_image embed /photos --store "/shared/$1" --runner PortableRunner --job_endpoint localhost:8073 \
    --environment_type EXTERNAL --environment_config localhost:50000
}
dataset_hash() { # of the store $1 below /shared
  shell "python -c 'from beam_flowers.store.commits import latest
print(*(section.dataset_hash for section in latest(\"/shared/$1\").sections.values()))'"
}

check_prism() {
  local one other
  background "$scratch/prism.log" "$GOBIN/prism" -job_port 8073 -serve_http=false
  background "$scratch/pool.log" in_image --worker_pool
  await 8073 "$scratch/prism.log"
  await 50000 "$scratch/pool.log" # Beam's boot program knows no other port.
  on_prism on-prism || { tail -20 "$scratch/pool.log" >&2; fail "embed on Prism"; }
  grep -q "Starting worker with command" "$scratch/pool.log" || fail "the pool started no worker"
  on_prism on-prism | tee "$scratch/again.log"
  grep -q "embedded 0, reused 220" "$scratch/again.log" || fail "the second run computed again"
  in_image embed /photos --store /shared/in-process
  one=$(dataset_hash on-prism) other=$(dataset_hash in-process)
  printf 'dataset_hash: %s on Prism, %s in one process\n' "$one" "$other"
  [ -n "$one" ] && [ "$one" = "$other" ] || fail "the two stores differ"
}

prove() {
  trap 'finish "the proofs"' EXIT
  ip link set lo up
  mkdir -m 1777 "$scratch/shared" && chmod 755 "$scratch"
  container=$(images from --pull-never "$image")
  say "content" && check_content
  say "demo" && check_demo
  say "embed on Prism" && check_prism
}

if [ "${1:-}" = --prove ]; then prove; else build; unshare --net "$0" --prove; fi
