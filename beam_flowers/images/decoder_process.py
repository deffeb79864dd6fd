"""Decodes images for another process, which outlives a crash of the decoders.

`backbones.decoders` starts it; `decoder_protocol` defines requests and answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from beam_flowers.errors import ImageError
from beam_flowers.images.child_process import open_answers
from beam_flowers.images.decode import decode, decode_whole
from beam_flowers.images.decoder_protocol import GRANTED, READY, SIZES
from beam_flowers.images.memory_gate import AskingGate, memory_limit, set_gate
from beam_flowers.images.recipe import Limits, PixelRecipe
from beam_flowers.records import READ

_MOST_SECONDS = 600
"""Clock time for one image. The asking process stops slow images. This alarm ends a call of C that
continues after that process was killed."""

_OOM_PENALTY = 300
"""Thousandths of the memory that Linux adds to this process when it chooses one to kill. If memory
runs out, the run loses one image and not a worker."""


def main(free: int) -> None:
    """Answers requests until standard input ends, as it does when the asking process dies.

    Args:
        free: bytes of memory that an image may take without asking.
    """
    answers = open_answers()
    with contextlib.suppress(OSError):  # Only Linux has it.
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(min(1000, int(score.read_text()) + _OOM_PENALTY)))

    def ask(needed: int) -> None:
        text = json.dumps({"needs": needed}).encode()
        answers.write(SIZES.pack(len(text), 0) + text)
        answers.flush()
        if not sys.stdin.buffer.read(len(GRANTED)):
            sys.exit()
        signal.alarm(_MOST_SECONDS)

    set_gate(AskingGate(memory_limit(), free, ask))
    answers.write(READY)
    answers.flush()
    with contextlib.suppress(BrokenPipeError):
        while len(sizes := sys.stdin.buffer.read(SIZES.size)) == SIZES.size:
            options, data = map(sys.stdin.buffer.read, SIZES.unpack(sizes))
            about, pixels = _answer(options, data)
            text = json.dumps(about).encode()
            answers.write(SIZES.pack(len(text), memoryview(pixels).nbytes) + text)
            answers.write(pixels)
            answers.flush()


def _answer(options: bytes, data: bytes) -> tuple[dict[str, Any], bytes | memoryview]:
    recipe, limits, is_whole = _read_options(options)
    signal.alarm(_MOST_SECONDS)
    try:
        image = (decode_whole if is_whole else decode)(data, recipe, limits)
    except ImageError as error:
        if error.stage == READ:
            # Memory ran out. The asking process retries, as after a kill by the system.
            os.kill(os.getpid(), signal.SIGKILL)
        return {"error_class": error.error_class, "message": error.message}, b""
    finally:
        signal.alarm(0)
    about = image._asdict() | {"pixels": image.pixels.shape}
    return about, image.pixels.data


@lru_cache(maxsize=8)
def _read_options(options: bytes) -> tuple[PixelRecipe, Limits, bool]:
    fields = json.loads(options)
    return PixelRecipe(**fields["recipe"]), Limits(**fields["limits"]), fields["whole"]
