"""Cancels a job: `python -m beam_flowers.runs.jobs HOST:PORT JOB`, by Beam's Job API.

This module keeps its name: earlier runs have printed the command.
"""

import sys

from beam_flowers.transforms.jobs import cancel

if __name__ == "__main__":
    print(cancel(*sys.argv[1:]))
