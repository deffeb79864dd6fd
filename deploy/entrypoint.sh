#!/bin/sh
# A command of beam-flowers runs the application. Flags, which no command starts with, are Beam's:
# --worker_pool for a pool on port 50000, --id=... when a runner starts one worker itself.
case "${1:---help}" in
  -h | --help) exec beam-flowers --help ;;
  -*) exec /opt/apache/beam/boot "$@" ;;
  beam-flowers | python | sh) exec "$@" ;;
  *) exec beam-flowers "$@" ;;
esac
