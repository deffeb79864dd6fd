"""`beam-flowers score` as a file to submit to a cluster."""

import sys

from beam_flowers.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
