"""`beam-flowers embed` as a file to submit to a cluster."""

import sys

from beam_flowers.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["embed", *sys.argv[1:]]))
