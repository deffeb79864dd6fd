"""Commands in processes of their own, which start without importing anything."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_IMPORTED = [
    "beam_flowers.cli.main",
    "beam_flowers.transforms.plan",
    "beam_flowers.transforms.runner",
    "beam_flowers.workflows.embed",
    "beam_flowers.workflows.score",
    "openvino",
]


@dataclass
class Command:
    """A command of the console at work, forked from a process that has no threads.

    Attributes:
        arguments: of the command line.
        log: file of what it says.
    """

    arguments: Sequence[Any]
    log: Path
    _process: ForkServerProcess = field(init=False)

    def __post_init__(self) -> None:
        Path(f"{self.log}.code").unlink(missing_ok=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        self.arguments = [str(argument) for argument in self.arguments]
        self._process = context.Process(target=_run, args=(self.arguments, str(self.log)))
        self._process.start()

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal, unless the command has ended."""
        if self._process.exitcode is None:
            os.kill(self._process.pid or 0, number)

    def wait(self, seconds: float = 120) -> int:
        """Waits for the end; returns the exit code, or the signal with a minus."""
        self._process.join(seconds)
        code = self._process.exitcode
        # The fork server may lose a status: "waitpid returned unexpected pid". The command wrote
        # its code unless it was killed.
        if code is None and not Path(f"/proc/{self._process.pid}").exists():
            written = Path(f"{self.log}.code")
            code = int(written.read_text()) if written.exists() else -signal.SIGKILL
        assert code is not None, f"{self.arguments} hangs: {self.said()}"
        return code

    def said(self) -> str:
        """All that the command has written."""
        return self.log.read_text() if self.log.exists() else ""

    def take_what_it_said(self) -> str:
        """The same, and deletes the log."""
        text = self.said()
        self.log.unlink(missing_ok=True)
        return text


def _run(arguments: list[str], log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    from beam_flowers.cli.main import entry

    code = entry(arguments)
    Path(f"{log}.code").write_text(str(code))
    sys.exit(code)
