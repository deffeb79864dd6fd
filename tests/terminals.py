"""Commands on a terminal, with a Ctrl-C, and when their first line comes."""

import codecs
import contextlib
import io
import os
import pty
import re
import signal
import subprocess
import time


class Stamped(io.StringIO):
    """Remembers when the first line came."""

    first = float("inf")

    def write(self, text):
        self.first = min(self.first, time.monotonic())
        return super().write(text)


def on_a_terminal(command, interrupt=""):
    """(exit code, what the terminal got); Ctrl-C as soon as it shows the pattern `interrupt`."""
    terminal, stderr = pty.openpty()
    run = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=stderr)
    os.close(stderr)
    decoder, shown = codecs.getincrementaldecoder("utf-8")(), ""
    with contextlib.suppress(OSError):  # The other end is closed.
        while True:
            shown += decoder.decode(os.read(terminal, 65536))
            if interrupt and re.search(interrupt, shown):
                run.send_signal(signal.SIGINT)
                interrupt = ""
    os.close(terminal)
    return run.wait(), shown
