"""Decodes images in separate processes, so that a crash in C costs one image."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import io
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from beam_flowers.backbones.hardware import cores
from beam_flowers.errors import ImageError, WorkerError
from beam_flowers.images.child_process import status_name
from beam_flowers.images.decoder_protocol import GRANTED, READY, SIZES, options_of
from beam_flowers.images.formats import sniff
from beam_flowers.images.memory_gate import Gate, memory_limit
from beam_flowers.images.recipe import DEFAULT_LIMITS, Limits, PixelRecipe
from beam_flowers.images.rules import CRASHED, decoder_versions
from beam_flowers.records import READ, DecodedImage

# It gets the path of this process, to which a notebook or a worker may have added. It runs by `-c`,
# as multiprocessing would import the user's main script again, which may start a second run.
_PROGRAM = (
    "import sys; free, sys.path[:] = int(sys.argv[1]), sys.argv[2:]; "
    "from beam_flowers.images.decoder_process import main; main(free)"
)

_TRIES_ALONE = 2
_PAUSE = 0.5
"""Seconds before the next try after a process was killed: memory may be free again by then."""

_START_SECONDS = 0.2
"""CPU time to start one more process. It is started after as much time of decoding, so that a few
images start only one."""

_END_SECONDS = 5.0

_PIPE_BYTES = 2**20
"""Largest pipe that Linux gives any user: most files and pixels go in one piece."""

_CPU_FACTOR = 6
"""Multiple of `Limits.seconds` that one call of C may take. Between reads Pillow has the limit."""

_TOO_SLOW = -signal.SIGXCPU
"""Status of a process that was ended for taking longer."""

_FAULTS = {
    -number
    for number in (
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGABRT,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGTRAP,
        signal.SIGSYS,
    )
}


class _EndedError(Exception):
    """Reports that a decoder process ended before its answer.

    Attributes:
        status: exit code, or the negative number of the signal that ended it.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    @property
    def is_crash(self) -> bool:
        """Tells if the process itself failed, and was not ended from outside.

        A positive exit code is C's `exit`, by which some libraries report damage. Other signals
        are sent: SIGKILL for lack of memory, SIGTERM at a shutdown. 0 also means an unknown
        status.
        """
        return self.status > 0 or self.status in _FAULTS


def decode_apart(
    data: bytes, recipe: PixelRecipe, limits: Limits = DEFAULT_LIMITS, *, whole: bool = False
) -> DecodedImage:
    """Decodes one image in a decoder process, to the same pixels as in this process.

    Args:
        data: the whole file.
        recipe: size, crop and filter.
        limits: bounds of bytes, pixels and time.
        whole: decodes as `decode_whole`, not as `decode`.

    Raises:
        ImageError: with the classes of `decode`. Also `Crashed`: the image crashed its decoder
            process and two new ones. `Killed`, of stage `read`: the process was ended from
            outside each time, for which the image need not be the cause.
        WorkerError: this machine cannot start a decoder process.
    """
    options = options_of(recipe, limits, whole)
    seconds = _CPU_FACTOR * limits.seconds
    ends: list[_EndedError] = []
    # An earlier image may have corrupted the memory of a process: hence the tries in new ones.
    for is_alone in (False, *[True] * _TRIES_ALONE):
        try:
            return _decoders.ask(options, data, seconds, alone=is_alone)
        except _EndedError as ended:
            if ended.status == _TOO_SLOW:
                raise ImageError(
                    "Timeout", f"decoding took more than {seconds:g} seconds of CPU time"
                ) from ended
            ends.append(ended)
            if not ended.is_crash:
                time.sleep(_PAUSE)
    raise _verdict(data, ends)


def warm_up() -> None:
    """Starts the first decoder process unless one runs; does not wait for it."""
    _decoders.warm_up()


def _verdict(data: bytes, ends: Sequence[_EndedError]) -> ImageError:
    format_, name = sniff(data) or "file", status_name(ends[-1].status)
    if all(ended.is_crash for ended in ends[-_TRIES_ALONE:]):
        return ImageError(
            CRASHED,
            f"{format_} ends its decoder, also one of its own ({name}; {decoder_versions()}): "
            "save it anew with another program",
        )
    return ImageError(
        "Killed",
        f"{format_}: the process that decodes it was ended each time, the last by {name}, as "
        "happens where memory runs out: run this again, with more memory or fewer workers",
        stage=READ,
    )


@lru_cache(maxsize=1)
def _gate() -> Gate:
    """Returns the gate of all decoder processes of this process, at most as many as cores."""
    return Gate(memory_limit(), cores())


class _Decoder:
    """Starts and asks one decoder process, for one thread at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _PROGRAM, str(_gate().free), *map(str, sys.path)]
        # NumPy's BLAS is not used there, and would start a thread for each core.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=environment
            )
        except OSError as error:
            raise WorkerError(f"no decoder process can be started: {error}") from error
        assert self._process.stdin
        assert isinstance(self._process.stdout, io.BufferedReader)
        self._requests, self._answers = self._process.stdin, self._process.stdout
        _enlarge(self._requests)
        _enlarge(self._answers)
        self._answered = select.poll()
        self._answered.register(self._answers, select.POLLIN)
        self._is_ready = False

    def ask(self, options: bytes, data: bytes, seconds: float) -> DecodedImage:
        """Has an image decoded in at most `seconds` of CPU time.

        Raises:
            ImageError: the image is a reject.
            _EndedError: the process ended.
            WorkerError: the process does not start.
        """
        # Imported late: a command starts the process before its own slow imports.
        import numpy as np

        if not self._is_ready:
            self._wait_until_ready()
        try:
            for part in (SIZES.pack(len(options), len(data)) + options, data):
                self._write(part)
            about, pixel_bytes = self._answer(seconds)
            if "error_class" in about:
                raise ImageError(about["error_class"], about["message"])
            pixels = np.empty(about.pop("pixels"), np.uint8)
            if pixels.nbytes != pixel_bytes or self._answers.readinto(pixels.data) != pixel_bytes:
                raise EOFError
        except (BrokenPipeError, EOFError, KeyError, ValueError) as error:
            # KeyError and ValueError come from malformed answers: the process' memory is corrupt.
            raise _EndedError(self.end()) from error
        return DecodedImage(pixels, **about)

    def _answer(self, seconds: float) -> tuple[dict[str, Any], int]:
        """Reads an answer up to its pixels; grants memory on request."""
        with contextlib.ExitStack() as memory:
            while True:
                self._wait_for_answer(seconds)
                text_bytes, pixel_bytes = SIZES.unpack(self._read(SIZES.size))
                about = json.loads(self._read(text_bytes))
                if "needs" not in about:
                    return about, pixel_bytes
                # An image that is decoded twice asks twice, and has freed the first memory by then.
                memory.close()
                if type(about["needs"]) is not int or about["needs"] > _gate().most:
                    raise ValueError
                memory.enter_context(_gate().hold(about["needs"], "image"))
                self._write(GRANTED)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._requests.fileno(), rest) :]

    def _wait_until_ready(self) -> None:
        lines = []
        for line in self._answers:
            if line == READY:
                self._is_ready = True
                return
            lines.append(line.decode(errors="replace").strip())
        ended = _EndedError(self.end())
        if ended.status < 0 and not ended.is_crash:
            raise ended
        raise WorkerError(
            f"the decoder process {sys.executable} does not start ({status_name(ended.status)}): "
            f"{lines[-1] if lines else 'it says nothing'}"
        )

    def _wait_for_answer(self, seconds: float) -> None:
        """Waits for an answer, and ends the process if it takes too long.

        Nothing else stops a call of C that reads no more of the file. A timer in the process would,
        but made decoding a tenth slower (ITIMER_PROF, Linux 6.18).
        """
        begun = None
        while not self._answered.poll(1000 * seconds):
            now = _cpu_seconds(self._process.pid)
            begun = now if begun is None else begun
            if now - begun > seconds:
                self.kill()
                raise _EndedError(_TOO_SLOW)

    def _read(self, size: int) -> bytes:
        data = self._answers.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def end(self) -> int:
        """Waits for an idle or dying process to end, and returns its exit status."""
        self._requests.close()
        try:
            return self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            return self.kill()
        finally:
            self._answers.close()

    def kill(self) -> int:
        """Ends the process at once, and returns its exit status."""
        self._process.kill()
        self._requests.close()
        self._answers.close()
        return self._process.wait()


def _cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process; clock time on systems other than Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return time.monotonic()


def _enlarge(pipe: IO[bytes]) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # Linux limits the size of all pipes of a user.
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


class _Decoders:
    """Lends decoder processes to threads: one at first, later as many as cores."""

    def __init__(self) -> None:
        # The last used process comes first, as its memory is still in the processor's caches. Runs
        # take 1.7 % longer than with decoding in this process, and 3.2 % with a FIFO queue.
        self._idle: queue.LifoQueue[_Decoder | None] = queue.LifoQueue()
        self._idle.put(None)
        self._count = 1
        self._seconds = 0.0
        self._lock = threading.Lock()

    def ask(self, options: bytes, data: bytes, seconds: float, *, alone: bool) -> DecodedImage:
        """Has an image decoded by the next free process, or if `alone` by a new one.

        Raises:
            ImageError: the image is a reject.
            _EndedError: the process ended.
            WorkerError: the process does not start.
        """
        with self._borrowed(alone) as decoder:
            begun = time.perf_counter()
            try:
                return decoder.ask(options, data, seconds)
            finally:
                self._grow(time.perf_counter() - begun)

    @contextlib.contextmanager
    def _borrowed(self, alone: bool) -> Iterator[_Decoder]:
        decoder = self._idle.get()
        try:
            if alone and decoder:
                decoder.end()
                decoder = None
            decoder = decoder or _Decoder()
            yield decoder
        except ImageError:
            raise
        except BaseException:
            # A process in the middle of an answer cannot be used again.
            if decoder:
                decoder.kill()
            decoder = None
            raise
        finally:
            self._idle.put(decoder)

    def _grow(self, seconds: float) -> None:
        with self._lock:
            self._seconds += seconds
            if self._count < cores() and self._seconds > _START_SECONDS * self._count:
                self._count += 1
                self._idle.put(None)

    def warm_up(self) -> None:
        """Starts the first process unless one runs."""
        with contextlib.suppress(queue.Empty):
            decoder = self._idle.get_nowait()
            try:
                decoder = decoder or _Decoder()
            finally:
                self._idle.put(decoder)

    def end(self) -> None:
        """Ends the idle processes. One that is asked for afterwards is started anew."""
        ended = 0
        with contextlib.suppress(queue.Empty):
            while True:
                decoder = self._idle.get_nowait()
                ended += 1
                if decoder:
                    decoder.end()
        # Without a place in the queue a later image would wait for ever.
        for _ in range(ended):
            self._idle.put(None)


_decoders = _Decoders()


def _forget() -> None:
    global _decoders
    _decoders = _Decoders()


# A fork would share the pipes with this process, and take its answers.
os.register_at_fork(after_in_child=_forget)
# They would end by themselves, but as orphans, which remain zombies in containers without init.
atexit.register(lambda: _decoders.end())
