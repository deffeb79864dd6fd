"""Computes the vectors of distorted copies; each image is read and decoded once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from beam_flowers.backbones.compute import Done, Engine, Pending, pool, read_content
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.contrib.augment.distort import Distortions, canvas_recipe, distort
from beam_flowers.contrib.augment.ledger import Copy, CopyVector
from beam_flowers.errors import ImageError
from beam_flowers.images.recipe import Limits, PixelRecipe
from beam_flowers.records import DecodedImage, Embedding, Image, Reject, Seconds

CopyResult = CopyVector | Reject


def start_copies(
    copies: Sequence[Copy], engine: Engine, distortions: Distortions, limits: Limits
) -> Pending:
    """Hands copies, sorted by content, to the pool: one task for each content."""
    contents = groupby(copies, key=lambda copy: copy.sha256)
    return [
        pool().submit_counted(_compute, list(group), engine, distortions, limits)
        for _, group in contents
    ]


def collect_copies(pending: Pending) -> list[CopyResult]:
    """Waits for the tasks of `start_copies`; returns one result for each copy, in their order."""
    return [result for future in pending for result in future.result().outcomes]


def _compute(
    copies: Sequence[Copy], engine: Engine, distortions: Distortions, limits: Limits
) -> Done:
    """Computes all copies of one content."""
    begun = time.perf_counter()
    canvas = _open(copies, canvas_recipe(engine.recipe, distortions), limits)
    if isinstance(canvas, Reject):
        rejects = [_rejected(copy, *canvas[1:4]) for copy in copies]
        return Done(rejects, Seconds(time.perf_counter() - begun))
    sha, numbers = copies[0].sha256, sorted({copy.k for copy in copies})
    pixels = [distort(canvas, engine.recipe, distortions, sha, k) for k in numbers]
    opened = time.perf_counter()
    vectors = dict(zip(numbers, engine.embed(np.stack(pixels)), strict=True))
    seconds = Seconds(opened - begun, time.perf_counter() - opened)
    size = (canvas.width, canvas.height, canvas.format)
    results = [
        CopyVector(Embedding(copy.image, sha, *size, vectors[copy.k]), copy.k)
        if np.isfinite(vectors[copy.k]).all()
        else _rejected(copy, "embed", "NotFinite", "the network gives NaN or infinity")
        for copy in copies
    ]
    return Done(results, seconds)


def _open(copies: Sequence[Copy], recipe: PixelRecipe, limits: Limits) -> DecodedImage | Reject:
    """Decodes an image from the first of its files that still has its content."""
    rejects = []
    for image in dict.fromkeys(copy.image for copy in copies):
        opened = _open_one(image, copies[0].sha256, recipe, limits)
        if isinstance(opened, DecodedImage):
            return opened
        rejects.append(opened)
    return rejects[0]


def _open_one(
    image: Image, sha256: str, recipe: PixelRecipe, limits: Limits
) -> DecodedImage | Reject:
    content = read_content(image, limits)
    if isinstance(content, Reject):
        return content
    _, data, digest = content
    if digest != sha256:
        return Reject(image, "read", "Changed", "the file was changed since it was embedded")
    try:
        return decode_apart(data, recipe, limits, whole=True)
    except ImageError as error:
        return Reject(image, error.stage, error.error_class, error.message)


def _rejected(copy: Copy, stage: str, error_class: str, message: str) -> Reject:
    return Reject(copy.image, stage, error_class, f"copy {copy.k}: {message}", copy.sha256)
