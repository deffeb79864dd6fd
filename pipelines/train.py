"""`beam-flowers train` as a file to submit to a cluster."""

import sys

from beam_flowers.cli.main import entry

if __name__ == "__main__":
    sys.exit(entry(["train", *sys.argv[1:]]))
