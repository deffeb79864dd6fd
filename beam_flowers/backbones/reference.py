"""Computes the embedding of a photograph of the package, by which machines are compared."""

from __future__ import annotations

import hashlib
from importlib.resources import as_file
from importlib.resources import files as resources

from beam_flowers.backbones.compute import compute_embeddings
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.records import Embedding, Image


def reference_digest(backbone: ResolvedBackbone) -> str:
    """Returns the hex sha256 of the photograph's vector: equal ones mean equal arithmetic.

    Raises:
        BackboneError: this machine cannot run the backbone.
    """
    flowers = resources("beam_flowers") / "data" / "flowers" / "unseen"
    with as_file(flowers) as folder:
        path = min(str(p) for p in folder.rglob("*.jpg"))
        (result,) = compute_embeddings([Image(path, str(folder), path)], load(backbone))
    assert isinstance(result, Embedding), result
    return hashlib.sha256(result.vector.tobytes()).hexdigest()
