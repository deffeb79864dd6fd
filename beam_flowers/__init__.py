"""Labels for folders of pictures, on Apache Beam.

The names below are the public API. They are imported when first asked for: Beam and TensorFlow
take seconds, which `beam-flowers --help` should not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any
from warnings import warn

if TYPE_CHECKING:
    from beam_flowers.backbones.resolve import resolve as resolve
    from beam_flowers.head.bundle import check_model_folder as check_model_folder
    from beam_flowers.head.bundle import read_bundle as read_bundle
    from beam_flowers.head.bundle import write_bundle as write_bundle
    from beam_flowers.head.image_classifier import ImageClassifierOptions as ImageClassifierOptions
    from beam_flowers.head.lbfgs import LbfgsOptions as LbfgsOptions
    from beam_flowers.head.retrain import RetrainOptions as RetrainOptions
    from beam_flowers.head.split import SplitOptions as SplitOptions
    from beam_flowers.images.decode import decode as decode
    from beam_flowers.images.find import find_images as find_images
    from beam_flowers.images.outputs import Writing as Writing
    from beam_flowers.images.recipe import Limits as Limits
    from beam_flowers.records import Bottleneck as Bottleneck
    from beam_flowers.records import Image as Image
    from beam_flowers.records import Reject as Reject
    from beam_flowers.records import Score as Score
    from beam_flowers.scoring.decision import AcceptanceRule as AcceptanceRule
    from beam_flowers.store.history import open_dataset as open_dataset
    from beam_flowers.transforms.compute import ComputeBottlenecks as ComputeBottlenecks
    from beam_flowers.transforms.find import FindImages as FindImages
    from beam_flowers.transforms.find import ReadImages as ReadImages
    from beam_flowers.transforms.label import ScoreBottlenecks as ScoreBottlenecks
    from beam_flowers.transforms.label import ScoreImages as ScoreImages
    from beam_flowers.transforms.ml_transform import ImageEmbeddings as ImageEmbeddings
    from beam_flowers.transforms.options import pipeline_options as pipeline_options
    from beam_flowers.transforms.read_write import ReadStore as ReadStore
    from beam_flowers.transforms.read_write import WriteScores as WriteScores
    from beam_flowers.transforms.read_write import WriteStore as WriteStore
    from beam_flowers.transforms.run_inference import (
        BottleneckModelHandler as BottleneckModelHandler,
    )
    from beam_flowers.transforms.run_inference import NewestModelHandler as NewestModelHandler
    from beam_flowers.transforms.run_inference import ScoreModelHandler as ScoreModelHandler
    from beam_flowers.transforms.streaming import WatchImages as WatchImages
    from beam_flowers.workflows.classify import classify_images as classify_images
    from beam_flowers.workflows.embed import RunOptions as RunOptions
    from beam_flowers.workflows.embed import embed_images as embed_images
    from beam_flowers.workflows.evaluate import EvaluationJob as EvaluationJob
    from beam_flowers.workflows.evaluate import evaluate_model as evaluate_model
    from beam_flowers.workflows.score import score_images as score_images
    from beam_flowers.workflows.score_options import ScoreOptions as ScoreOptions
    from beam_flowers.workflows.train import TrainOptions as TrainOptions
    from beam_flowers.workflows.train import train_model as train_model

    # The old names of `_DEPRECATED`.
    Job = ScoreOptions
    Rule = AcceptanceRule
    classify_pictures = classify_images

_HOMES = {
    "AcceptanceRule": "scoring.decision",
    "Bottleneck": "records",
    "BottleneckModelHandler": "transforms.run_inference",
    "ComputeBottlenecks": "transforms.compute",
    "EvaluationJob": "workflows.evaluate",
    "FindImages": "transforms.find",
    "Image": "records",
    "ImageEmbeddings": "transforms.ml_transform",
    "ImageClassifierOptions": "head.image_classifier",
    "LbfgsOptions": "head.lbfgs",
    "Limits": "images.recipe",
    "NewestModelHandler": "transforms.run_inference",
    "ReadImages": "transforms.find",
    "ReadStore": "transforms.read_write",
    "Reject": "records",
    "RetrainOptions": "head.retrain",
    "RunOptions": "workflows.embed",
    "Score": "records",
    "ScoreBottlenecks": "transforms.label",
    "ScoreImages": "transforms.label",
    "ScoreModelHandler": "transforms.run_inference",
    "ScoreOptions": "workflows.score_options",
    "SplitOptions": "head.split",
    "TrainOptions": "workflows.train",
    "WatchImages": "transforms.streaming",
    "WriteScores": "transforms.read_write",
    "WriteStore": "transforms.read_write",
    "Writing": "images.outputs",
    "check_model_folder": "head.bundle",
    "classify_images": "workflows.classify",
    "decode": "images.decode",
    "embed_images": "workflows.embed",
    "evaluate_model": "workflows.evaluate",
    "find_images": "images.find",
    "open_dataset": "store.history",
    "pipeline_options": "transforms.options",
    "read_bundle": "head.bundle",
    "resolve": "backbones.resolve",
    "score_images": "workflows.score",
    "train_model": "workflows.train",
    "write_bundle": "head.bundle",
}

_DEPRECATED = {
    "Job": "ScoreOptions",
    "Rule": "AcceptanceRule",
    "classify_pictures": "classify_images",
}
"""Old names -> new ones; they work in 0.2 and go in 0.3, by the rule of one minor version."""

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _DEPRECATED:
        old, name = name, _DEPRECATED[name]
        text = f"beam_flowers.{old} is now beam_flowers.{name}; the old name goes in 0.3"
        warn(text, DeprecationWarning, stacklevel=2)
    if name not in _HOMES:
        raise AttributeError(f"module 'beam_flowers' has no attribute {name!r}")
    return getattr(import_module(f"beam_flowers.{_HOMES[name]}"), name)
