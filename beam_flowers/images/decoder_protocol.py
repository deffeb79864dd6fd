"""Defines requests to and answers of a decoder process, without importing a decoder.

A request on standard input is a header of two sizes, the options as JSON and the file. An answer on
standard output is a header of two sizes, a JSON object and the pixels. Before it, `{"needs": N}`
may ask for N bytes of memory, which `GRANTED` grants. Pickle is not used: a decoder that a hostile
image controls must not run code in the asking process.
"""

from __future__ import annotations

import json
import struct
from functools import lru_cache

from beam_flowers.images.recipe import Limits, PixelRecipe

READY = b"ready to decode\n"
"""Line that the decoder process writes after its imports."""

GRANTED = b"!"
"""Byte that the asking process writes to grant memory for a large image."""

SIZES = struct.Struct("<IQ")
"""Header of requests and answers: bytes of the JSON text, bytes of the file or of the pixels."""


@lru_cache(maxsize=8)
def options_of(recipe: PixelRecipe, limits: Limits, whole: bool) -> bytes:
    """Returns the options of a request as JSON."""
    options = {"recipe": vars(recipe), "limits": vars(limits), "whole": whole}
    return json.dumps(options).encode()
