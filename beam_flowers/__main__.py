"""Runs `python -m beam_flowers`, as `beam-flowers`."""

import sys

from beam_flowers.cli.main import entry

if __name__ == "__main__":
    sys.exit(entry())
