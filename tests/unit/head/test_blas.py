"""One BLAS thread while any of the functions runs that want it, all of them afterwards.

In a process of its own: once the main thread has set a number, OpenBLAS 0.3.31 no longer lets
another thread lower it, so that the limit then holds in the main thread alone.
"""

import subprocess
import sys

OVERLAPPING = """
import threading
import numpy as np
from threadpoolctl import threadpool_info
from beam_flowers.head.blas import one_blas_thread

def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

before = blas_threads()
first_began, first_may_end = threading.Event(), threading.Event()

@one_blas_thread
def first():
    first_began.set()
    first_may_end.wait(10)

@one_blas_thread
def second():
    first_may_end.set()
    thread.join()
    return blas_threads()

thread = threading.Thread(target=first)
thread.start()
first_began.wait(10)
print(second(), blas_threads() == before)
"""


def test_functions_that_overlap_are_limited_to_the_end_of_the_last():
    run = subprocess.run([sys.executable, "-c", OVERLAPPING], capture_output=True, text=True)
    assert run.stdout == "{1} True\n", run.stderr
