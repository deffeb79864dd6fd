"""One BLAS thread while any of the functions runs that want it, all of them afterwards."""

import threading

import numpy as np
from threadpoolctl import threadpool_info

from beam_flowers.head.threads import one_blas_thread


def blas_threads():
    np.zeros((1, 1)) @ np.zeros((1, 1))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_functions_that_overlap_are_limited_to_the_end_of_the_last():
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
    assert second() == {1}
    assert blas_threads() == before
