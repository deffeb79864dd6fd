"""Tells apart what a user may name: images, a feature store, a model, a table of scores."""

from __future__ import annotations

import itertools

from beam_flowers import files
from beam_flowers.head.bundle import MODEL_FILE
from beam_flowers.images.formats import sniff
from beam_flowers.images.manifest import is_manifest
from beam_flowers.images.outputs import recognised
from beam_flowers.scoring.read_table import is_score_folder
from beam_flowers.scoring.write_table import is_score_file, suffix
from beam_flowers.store.names import COMMITS

STORE, MODEL, SCORES = "a feature store", "a model", "a table of scores"
FOLDER, IMAGE, LIST = "a folder of images", "an image", "a list of images"

_MOST_ENTRIES = 200
"""Entries of a folder among which an image is looked for."""
_HEAD = 4096


def recognise(path: str) -> str | None:
    """Returns one of the constants above for a path; None for something else or nothing."""
    uri = files.absolute(path)
    if files.is_folder(uri):
        if files.is_folder(files.join(uri, COMMITS)):
            return SCORES if is_score_folder(uri) else STORE
        if all(files.exists(files.join(uri, name)) for name in (MODEL_FILE, "labels.txt")):
            return MODEL
        return FOLDER if _has_image(uri) else None
    if not files.exists(uri) or files.stat(uri).kind != "file":
        return None
    if suffix(uri) and recognised(is_score_file, uri):
        return SCORES
    if is_manifest(uri):
        return LIST
    return IMAGE if recognised(_is_image, uri) else None


def _has_image(folder: str) -> bool:
    """Tells if one of the first files below a folder is an image by its content."""
    entries = itertools.islice(files.walk(folder), _MOST_ENTRIES)
    return any(recognised(_is_image, e.uri) for e in entries if e.kind == "file")


def _is_image(uri: str) -> bool:
    return sniff(files.read_bytes(uri, _HEAD)) is not None
