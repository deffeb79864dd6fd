"""Reads the cores and the arithmetic of this machine's processor."""

from __future__ import annotations

import math
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Literal

from beam_flowers.errors import BackboneError, InputError

Precision = Literal["float32", "bfloat16", "int8"]
"""Type of a backbone's products. In bfloat16 factors have 8 bits instead of 24; in int8 they are
whole numbers of 7 and 8 bits, with a scale. Sums stay float32 or int32."""

THREADS = "BEAM_FLOWERS_THREADS"
"""Environment variable: images that a worker process computes at a time."""

_CPU_INFO = Path("/proc/cpuinfo")
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
# Line names on x86 and on Arm, where the flag covers the matrix products that oneDNN uses.
_FLAGS = ("flags", "features")
_BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}


@lru_cache(maxsize=1)
def cores() -> int:
    """Returns the number of cores to use: `THREADS`, else those of affinity and container.

    Raises:
        InputError: `THREADS` is not a positive number.
    """
    given = os.environ.get(THREADS)
    if given is not None:
        if not (given.isdecimal() and int(given)):
            raise InputError(f"{THREADS}={given} is no number of threads; give 1 or more")
        return int(given)
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(own or 1, _quota()))


def share_cores(processes: int, given: str = "") -> None:
    """Sets this process' share of the cores before the first use; keeps its own `THREADS`.

    Args:
        processes: number of worker processes on the machine.
        given: value of `THREADS` on the driver, empty if not set there.
    """
    if THREADS not in os.environ and (given or processes > 1):
        os.environ[THREADS] = given or str(max(1, cores() // processes))
        cores.cache_clear()


def _quota() -> int:
    """Returns the cores that the control group allows (Linux, cgroup v2, `cpu.max`)."""
    try:
        quota, period = _CPU_MAX.read_text("ascii").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # The file is missing, or holds "max".
        return sys.maxsize


@lru_cache(maxsize=1)
def flags() -> frozenset[str]:
    """Returns the processor's features by the names of Linux; empty on other systems."""
    try:
        lines = _CPU_INFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":")[2] for line in lines if line.lower().startswith(_FLAGS))
    return frozenset(next(named, "").split())


def has_bfloat16() -> bool:
    """Tells if the processor itself computes products in bfloat16, and so faster."""
    return bool(flags() & _BFLOAT16)


def require(precision: Precision) -> None:
    """Checks that this machine computes in a precision.

    Raises:
        BackboneError: the processor lacks it.
    """
    if precision == "bfloat16" and not has_bfloat16():
        import socket

        raise BackboneError(
            f"the processor of {socket.gethostname()} has no bfloat16 arithmetic (none of "
            f"{', '.join(sorted(_BFLOAT16))} in {_CPU_INFO}): leave --precision out, or run on "
            "machines that have it; every worker needs it"
        )
