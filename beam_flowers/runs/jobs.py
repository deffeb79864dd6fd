"""`python -m beam_flowers.runs.jobs HOST:PORT JOB` cancels a job on a server of Beam's Job API.

Stays for good: the command stands in what earlier runs have printed.
"""

import sys

from beam_flowers.transforms.jobs import cancel

if __name__ == "__main__":
    print(cancel(*sys.argv[1:]))
