"""Gives Beam's RunInference handlers: pixels to embeddings, embeddings to labels.

A head is small and is trained often, so its handler takes a newer model while the pipeline runs.
A backbone is neither.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from apache_beam.ml.inference.base import ModelHandler

from beam_flowers import files
from beam_flowers.backbones.engine import Engine, load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BackboneError, BeamFlowersError, ModelError
from beam_flowers.head.bundle import MODEL_FILE, read_bundle
from beam_flowers.records import Embedding, Score
from beam_flowers.scoring.decision import AcceptanceRule
from beam_flowers.scoring.ranking import TOP_K, Labeller

_PIXELS = {"min_batch_size": 1, "max_batch_size": 32}
"""Beam's own limit of 10,000 images a batch would be gigabytes of pixels."""

_VECTORS = {"min_batch_size": 1, "max_batch_size": 1000}

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class EmbeddingModelHandler(ModelHandler[npt.NDArray[np.uint8], npt.NDArray[np.float32], Engine]):
    """Computes float32 [D] embeddings of uint8 [H, W, 3] pixels in Beam's RunInference.

    `decode(data, engine.recipe)` gives such pixels; `load_model` returns the engine.

    Args:
        backbone: the network.
        options: batching and sharing, as `ModelHandler` has them.
    """

    def __init__(self, backbone: ResolvedBackbone, **options: Any) -> None:
        super().__init__(**(_PIXELS | options))
        self._backbone = backbone

    def load_model(self) -> Engine:
        """Returns the backbone's engine, one for all steps and threads of a process."""
        return load(self._backbone)

    def run_inference(
        self,
        batch: Sequence[npt.NDArray[np.uint8]],
        model: Engine,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[npt.NDArray[np.float32]]:
        """Returns an embedding of each image, the same bits as if it were alone."""
        return list(model.embed(np.stack(batch)))

    def get_num_bytes(self, batch: Sequence[npt.NDArray[np.uint8]]) -> int:
        """Returns the bytes of a batch's pixels."""
        return sum(pixels.nbytes for pixels in batch)

    def update_model_path(self, model_path: str | None = None) -> None:
        """Refuses another network: vectors of two can't be compared, and these carry no name.

        Raises:
            BackboneError: always, if there is a path.
        """
        if model_path:
            raise BackboneError(
                f"{model_path!r} cannot take the place of {self._backbone.row.name!r} while the "
                "pipeline runs: vectors of two networks cannot be compared. Begin a new pipeline, "
                "or watch for new heads, with ScoreModelHandler"
            )


class ScoreModelHandler(ModelHandler[Embedding, Score, Labeller]):
    """Gives `Embedding`s a `Score` in Beam's RunInference, by a model that may be replaced.

    Newer models come by RunInference's `model_metadata_pcoll`, or by `watch_model_pattern=
    "models/*/model.json"` on runners that have triggers for side inputs (Prism has none). That file
    is written last, so that no model is taken half written. All models are of one backbone.

    Args:
        model: folder of the model to begin with.
        top_k: labels a score.
        rule: when a label is given.
        options: batching and sharing, as `ModelHandler` has them.

    Raises:
        ModelError: the model can't be read, or takes vectors of another backbone.
    """

    def __init__(
        self, model: str, top_k: int = TOP_K, rule: AcceptanceRule | None = None, **options: Any
    ) -> None:
        super().__init__(**(_VECTORS | options))
        self._model = files.absolute(model)
        self._top_k = top_k
        self._rule = rule or AcceptanceRule()
        self._fingerprint = read_bundle(self._model).fingerprint

    def load_model(self) -> Labeller:
        """Returns the model that was named last.

        Raises:
            ModelError: it can't be read, or takes vectors of another backbone.
        """
        return self.read_model(self._model)

    def read_model(self, model: str) -> Labeller:
        """Returns the labeller of the model in a folder; see `load_model`."""
        bundle = read_bundle(model)
        if bundle.fingerprint != self._fingerprint:
            raise ModelError(
                f"the model {model!r} takes vectors of {bundle.backbone} "
                f"({bundle.fingerprint[:8]}), the pipeline makes those of {self._fingerprint[:8]}: "
                "train it on these, or keep it out of the folder that is watched"
            )
        return Labeller.of(bundle, self._rule)

    def run_inference(
        self,
        batch: Sequence[Embedding],
        model: Labeller,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[Score]:
        """Returns a `Score` for each vector; `model_id` names the model that gave it."""
        return list(model.scores(batch, self._top_k))

    def get_num_bytes(self, batch: Sequence[Embedding]) -> int:
        """Returns the bytes of a batch's vectors."""
        return sum(embedding.vector.nbytes for embedding in batch)

    def update_model_path(self, model_path: str | None = None) -> None:
        """Takes another model: its folder, or the `model.json` in it."""
        if model_path:
            self._model = files.absolute(model_path.removesuffix(f"/{MODEL_FILE}"))


class NewestLabeller:
    """Holds the newest readable model of a folder; logs those that it skips.

    Args:
        folder: each model in it is a folder of its own.
        interval: seconds between two looks.
        read: folder of a model → what labels with it.

    Raises:
        ModelError: there is none.
    """

    def __init__(self, folder: str, interval: float, read: Callable[[str], Labeller]) -> None:
        self._folder = folder
        self._interval = interval
        self._read = read
        self._lock = threading.Lock()
        self._model, self._labeller = _read_newest(newest_first(folder), read)
        self._looked = time.monotonic()

    def current(self) -> Labeller:
        """Returns the newest model, or that of the last look if no newer one can be read."""
        with self._lock:
            if time.monotonic() - self._looked >= self._interval:
                self._looked = time.monotonic()
                try:
                    self._look()
                except (BeamFlowersError, OSError) as error:
                    _LOG.warning("goes on with %s: %s", self._model, error)
            return self._labeller

    def _look(self) -> None:
        models = newest_first(self._folder)
        # Only those that are newer than the present one; all of them if that was deleted.
        if self._model in models:
            models = models[: models.index(self._model)]
        if models:
            self._model, self._labeller = _read_newest(models, self._read)
            _LOG.info("labels with %s from now on", self._model)


class NewestModelHandler(ModelHandler[Embedding, Score, NewestLabeller]):
    """Gives `Embedding`s a `Score` by the newest model of a folder, as it appears.

    It needs no side input, so it works on every runner. A job that is started again takes the
    newest model. A model that cannot be read is skipped with a warning. So is one of another
    backbone than that of the newest model when the handler was made.

    Args:
        folder: each model in it is a folder of its own, written once.
        interval: seconds between two looks.
        top_k: labels a score.
        rule: when a label is given.
        options: batching and sharing, as `ModelHandler` has them.

    Raises:
        ModelError: there is no model that can be read.
    """

    def __init__(
        self,
        folder: str,
        interval: float = 60.0,
        top_k: int = TOP_K,
        rule: AcceptanceRule | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**(_VECTORS | options))
        self._folder = files.absolute(folder)
        self._interval = interval
        models = newest_first(self._folder)
        self._by = _read_newest(models, lambda model: ScoreModelHandler(model, top_k, rule))[1]

    def load_model(self) -> NewestLabeller:
        """Returns an object that looks for the newest model."""
        return NewestLabeller(self._folder, self._interval, self._by.read_model)

    def run_inference(
        self,
        batch: Sequence[Embedding],
        model: NewestLabeller,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[Score]:
        """Returns a `Score` for each vector; `model_id` names the model that gave it."""
        return self._by.run_inference(batch, model.current())

    def get_num_bytes(self, batch: Sequence[Embedding]) -> int:
        """Returns the bytes of a batch's vectors."""
        return self._by.get_num_bytes(batch)


def newest_first(folder: str) -> list[str]:
    """Returns the models in `folder`, newest description first.

    Raises:
        ModelError: there is none.
    """
    written = []
    for entry in files.list_folder(folder):
        description = files.join(entry.uri, MODEL_FILE)
        if entry.kind == "folder" and files.exists(description):
            written.append((files.stat(description).modified or 0, entry.uri))
    if not written:
        raise ModelError(f"no model lies in {folder!r}: train one into a folder below it")
    return [model for _, model in sorted(written, reverse=True)]


def _read_newest(models: list[str], read: Callable[[str], T]) -> tuple[str, T]:
    """Returns the first of the models that `read` can read, and its result."""
    errors = []
    for model in models:
        try:
            return model, read(model)
        except (BeamFlowersError, OSError) as error:
            _LOG.warning("passes over the model %s: %s", model, error)
            errors.append(error)
    raise ModelError(f"no model can be taken; of the newest: {errors[0]}") from errors[0]
