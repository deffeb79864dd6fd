"""Prepares processes that read untrusted files for another one, and names how they ended."""

from __future__ import annotations

import os
import resource
import signal
from typing import BinaryIO


def open_answers() -> BinaryIO:
    """Makes this process one that answers on standard output, and returns that stream."""
    # Ctrl-C goes to all processes of a terminal; the asking process handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Crashes are expected here, and core dumps would fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    answers = os.fdopen(os.dup(1), "wb")
    # Output of C libraries would be read as an answer.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return answers


def status_name(status: int) -> str:
    """Returns the signal that ended a process, or its exit code, as text."""
    return signal.Signals(-status).name if status < 0 else f"exit code {status}"
