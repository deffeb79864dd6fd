"""TF-Hub handles: a SavedModel as a .tar.gz behind http, downloaded once, on the driver."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile

from beam_flowers import files
from beam_flowers.errors import BackboneError

_LOG = logging.getLogger(__name__)


def is_handle(name: str) -> bool:
    """Whether a backbone is given as an address on the web."""
    return re.match(r"https?://", name) is not None


def fetch(handle: str) -> str:
    """The folder with a handle's SavedModel, downloaded by tensorflow_hub if it isn't there.

    Raises:
        BackboneError: it cannot be had.
    """
    cached = cache_folder(handle)
    if files.exists(files.join(cached, "saved_model.pb")):
        return cached
    folder = _download(handle)
    _LOG.info("downloaded %s to %s", handle, folder)
    return folder


def cache_folder(handle: str) -> str:
    """Where tensorflow_hub 0.16 keeps a handle's SavedModel (its compressed_module_resolver).

    Knowing it spares a run that has nothing to compute the import of TensorFlow.
    """
    default = os.path.join(tempfile.gettempdir(), "tfhub_modules")
    folder = os.environ.get("TFHUB_CACHE_DIR") or default
    return files.join(folder, hashlib.sha1(handle.encode(), usedforsecurity=False).hexdigest())


def _download(handle: str) -> str:
    try:
        import tensorflow_hub
    except ImportError as error:
        raise BackboneError(
            f"{handle!r} needs tensorflow_hub, which cannot be imported: {error}; "
            "pip install tensorflow-hub 'setuptools<81'"
        ) from error
    try:
        return str(tensorflow_hub.resolve(handle))
    except Exception as error:  # Of urllib, tarfile and TensorFlow, with no common base.
        raise BackboneError(
            f"{handle!r} cannot be downloaded: {type(error).__name__}: {error}; download the "
            "module where there is a network, unpack it, and give the folder instead, or use "
            "efficientnet-lite0, which needs no download"
        ) from error
