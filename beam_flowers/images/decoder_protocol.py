"""Defines how a process and its decoder process talk, without importing a decoder.

A request on standard input is a header of two sizes, the options as JSON and the file. An answer on
standard output is a header of two sizes, a JSON object and the pixels. Before it, `{"needs": N}`
may ask for N bytes of memory, which `GRANTED` grants. No pickle goes either way: a decoder that a
picture has taken over gets no program into the process that asks.
"""

from __future__ import annotations

import json
import struct
from functools import lru_cache

from beam_flowers.images.recipe import Limits, PixelRecipe

READY = b"ready to decode\n"
"""What the decoder process writes once it has imported all that it needs."""

GRANTED = b"!"
"""What the asking process writes when there is memory for a large picture."""

SIZES = struct.Struct("<IQ")
"""Begins requests and answers: bytes of the JSON text, bytes of the file or of the pixels."""


@lru_cache(maxsize=8)
def options_of(recipe: PixelRecipe, limits: Limits, whole: bool) -> bytes:
    """Writes the options of a request."""
    options = {"recipe": vars(recipe), "limits": vars(limits), "whole": whole}
    return json.dumps(options).encode()
