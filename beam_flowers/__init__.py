"""Labels for folders of images, on Apache Beam.

The names below are the public API. They are imported when first asked for: Beam and TensorFlow
take seconds, which `beam-flowers --help` should not.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any
from warnings import warn

if TYPE_CHECKING:
    from beam_flowers.backbones.catalogue import Backbone as Backbone
    from beam_flowers.backbones.engine import Engine as Engine
    from beam_flowers.backbones.resolve import ResolvedBackbone as ResolvedBackbone
    from beam_flowers.backbones.resolve import resolve as resolve
    from beam_flowers.errors import BackboneError as BackboneError
    from beam_flowers.errors import BackboneFieldError as BackboneFieldError
    from beam_flowers.errors import BeamFlowersError as BeamFlowersError
    from beam_flowers.errors import FieldError as FieldError
    from beam_flowers.errors import HeaderError as HeaderError
    from beam_flowers.errors import ImageError as ImageError
    from beam_flowers.errors import InputError as InputError
    from beam_flowers.errors import InputFieldError as InputFieldError
    from beam_flowers.errors import ModelError as ModelError
    from beam_flowers.errors import ModelFieldError as ModelFieldError
    from beam_flowers.errors import OutputError as OutputError
    from beam_flowers.errors import PartDamagedError as PartDamagedError
    from beam_flowers.errors import PartLostError as PartLostError
    from beam_flowers.errors import StoreError as StoreError
    from beam_flowers.errors import StoreFieldError as StoreFieldError
    from beam_flowers.errors import TrainingError as TrainingError
    from beam_flowers.errors import UnreachableError as UnreachableError
    from beam_flowers.errors import WorkerError as WorkerError
    from beam_flowers.head.bundle import Bundle as Bundle
    from beam_flowers.head.bundle import check_model_folder as check_model_folder
    from beam_flowers.head.bundle import read_bundle as read_bundle
    from beam_flowers.head.bundle import write_bundle as write_bundle
    from beam_flowers.head.examples import Examples as Examples
    from beam_flowers.head.image_classifier import ImageClassifierOptions as ImageClassifierOptions
    from beam_flowers.head.lbfgs import LbfgsOptions as LbfgsOptions
    from beam_flowers.head.metrics import Metrics as Metrics
    from beam_flowers.head.retrain import RetrainOptions as RetrainOptions
    from beam_flowers.head.softmax import Head as Head
    from beam_flowers.head.softmax import TrainingStep as TrainingStep
    from beam_flowers.head.split import SplitOptions as SplitOptions
    from beam_flowers.head.store_examples import StoredExamples as StoredExamples
    from beam_flowers.head.sweep import CrossValidation as CrossValidation
    from beam_flowers.head.sweep import SweepOptions as SweepOptions
    from beam_flowers.head.sweep import SweepTrial as SweepTrial
    from beam_flowers.head.temperature import Calibration as Calibration
    from beam_flowers.head.training import TrainResult as TrainResult
    from beam_flowers.images.decode import decode as decode
    from beam_flowers.images.find import find_images as find_images
    from beam_flowers.images.outputs import Writing as Writing
    from beam_flowers.images.recipe import Limits as Limits
    from beam_flowers.images.recipe import PixelRecipe as PixelRecipe
    from beam_flowers.records import DecodedImage as DecodedImage
    from beam_flowers.records import Embedding as Embedding
    from beam_flowers.records import HiddenFile as HiddenFile
    from beam_flowers.records import Image as Image
    from beam_flowers.records import Ranked as Ranked
    from beam_flowers.records import Reject as Reject
    from beam_flowers.records import RootListed as RootListed
    from beam_flowers.records import Score as Score
    from beam_flowers.scoring.answer import Agreement as Agreement
    from beam_flowers.scoring.answer import Confusion as Confusion
    from beam_flowers.scoring.answer import ScoreAnswer as ScoreAnswer
    from beam_flowers.scoring.copying import CopiedImages as CopiedImages
    from beam_flowers.scoring.decision import AcceptanceRule as AcceptanceRule
    from beam_flowers.scoring.decision import OperatingPoint as OperatingPoint
    from beam_flowers.scoring.decision import ThresholdResult as ThresholdResult
    from beam_flowers.scoring.decision import Thresholds as Thresholds
    from beam_flowers.scoring.ranking import Labeller as Labeller
    from beam_flowers.scoring.ranking import Ranking as Ranking
    from beam_flowers.scoring.table import ScoreLayout as ScoreLayout
    from beam_flowers.store.history import open_dataset as open_dataset
    from beam_flowers.store.vectors import Vectors as Vectors
    from beam_flowers.transforms.compute import ComputedImages as ComputedImages
    from beam_flowers.transforms.compute import ComputeEmbeddings as ComputeEmbeddings
    from beam_flowers.transforms.find import FindImages as FindImages
    from beam_flowers.transforms.find import FoundImages as FoundImages
    from beam_flowers.transforms.find import ImageContents as ImageContents
    from beam_flowers.transforms.find import ReadImages as ReadImages
    from beam_flowers.transforms.label import ScoredImages as ScoredImages
    from beam_flowers.transforms.label import ScoreEmbeddings as ScoreEmbeddings
    from beam_flowers.transforms.label import ScoreImages as ScoreImages
    from beam_flowers.transforms.ml_transform import ImageEmbeddings as ImageEmbeddings
    from beam_flowers.transforms.options import pipeline_options as pipeline_options
    from beam_flowers.transforms.read_write import ReadStore as ReadStore
    from beam_flowers.transforms.read_write import WriteScores as WriteScores
    from beam_flowers.transforms.read_write import WriteStore as WriteStore
    from beam_flowers.transforms.run_inference import (
        EmbeddingModelHandler as EmbeddingModelHandler,
    )
    from beam_flowers.transforms.run_inference import NewestLabeller as NewestLabeller
    from beam_flowers.transforms.run_inference import NewestModelHandler as NewestModelHandler
    from beam_flowers.transforms.run_inference import ScoreModelHandler as ScoreModelHandler
    from beam_flowers.transforms.streaming import WatchImages as WatchImages
    from beam_flowers.workflows.classify import classify_images as classify_images
    from beam_flowers.workflows.embed import RunOptions as RunOptions
    from beam_flowers.workflows.embed import embed_images as embed_images
    from beam_flowers.workflows.evaluate import EvaluatedModel as EvaluatedModel
    from beam_flowers.workflows.evaluate import EvaluationJob as EvaluationJob
    from beam_flowers.workflows.evaluate import evaluate_model as evaluate_model
    from beam_flowers.workflows.progress import Progress as Progress
    from beam_flowers.workflows.progress import ProgressState as ProgressState
    from beam_flowers.workflows.score import ScoreSummary as ScoreSummary
    from beam_flowers.workflows.score import score_images as score_images
    from beam_flowers.workflows.score_options import ScoreOptions as ScoreOptions
    from beam_flowers.workflows.summary import EmbedSummary as EmbedSummary
    from beam_flowers.workflows.train import TrainedModel as TrainedModel
    from beam_flowers.workflows.train import TrainOptions as TrainOptions
    from beam_flowers.workflows.train import train_model as train_model

    # The old names of `_DEPRECATED`.
    Bottleneck = Embedding
    BottleneckModelHandler = EmbeddingModelHandler
    ComputeBottlenecks = ComputeEmbeddings
    ScoreBottlenecks = ScoreEmbeddings
    Job = ScoreOptions
    Rule = AcceptanceRule
    classify_pictures = classify_images

_HOMES = {
    "AcceptanceRule": "scoring.decision",
    "Agreement": "scoring.answer",
    "Backbone": "backbones.catalogue",
    "BackboneError": "errors",
    "BackboneFieldError": "errors",
    "BeamFlowersError": "errors",
    "Embedding": "records",
    "EmbeddingModelHandler": "transforms.run_inference",
    "Bundle": "head.bundle",
    "Calibration": "head.temperature",
    "ComputeEmbeddings": "transforms.compute",
    "ComputedImages": "transforms.compute",
    "Confusion": "scoring.answer",
    "CopiedImages": "scoring.copying",
    "CrossValidation": "head.sweep",
    "DecodedImage": "records",
    "EmbedSummary": "workflows.summary",
    "Engine": "backbones.engine",
    "EvaluatedModel": "workflows.evaluate",
    "EvaluationJob": "workflows.evaluate",
    "Examples": "head.examples",
    "FieldError": "errors",
    "FindImages": "transforms.find",
    "FoundImages": "transforms.find",
    "Head": "head.softmax",
    "HeaderError": "errors",
    "HiddenFile": "records",
    "Image": "records",
    "ImageClassifierOptions": "head.image_classifier",
    "ImageContents": "transforms.find",
    "ImageEmbeddings": "transforms.ml_transform",
    "ImageError": "errors",
    "InputError": "errors",
    "InputFieldError": "errors",
    "Labeller": "scoring.ranking",
    "LbfgsOptions": "head.lbfgs",
    "Limits": "images.recipe",
    "Metrics": "head.metrics",
    "ModelError": "errors",
    "ModelFieldError": "errors",
    "NewestLabeller": "transforms.run_inference",
    "NewestModelHandler": "transforms.run_inference",
    "OperatingPoint": "scoring.decision",
    "OutputError": "errors",
    "PartDamagedError": "errors",
    "PartLostError": "errors",
    "PixelRecipe": "images.recipe",
    "Progress": "workflows.progress",
    "ProgressState": "workflows.progress",
    "Ranked": "records",
    "Ranking": "scoring.ranking",
    "ReadImages": "transforms.find",
    "ReadStore": "transforms.read_write",
    "Reject": "records",
    "ResolvedBackbone": "backbones.resolve",
    "RetrainOptions": "head.retrain",
    "RootListed": "records",
    "RunOptions": "workflows.embed",
    "Score": "records",
    "ScoreAnswer": "scoring.answer",
    "ScoreEmbeddings": "transforms.label",
    "ScoreImages": "transforms.label",
    "ScoreLayout": "scoring.table",
    "ScoreModelHandler": "transforms.run_inference",
    "ScoreOptions": "workflows.score_options",
    "ScoreSummary": "workflows.score",
    "ScoredImages": "transforms.label",
    "SplitOptions": "head.split",
    "StoreError": "errors",
    "StoreFieldError": "errors",
    "StoredExamples": "head.store_examples",
    "SweepOptions": "head.sweep",
    "SweepTrial": "head.sweep",
    "ThresholdResult": "scoring.decision",
    "Thresholds": "scoring.decision",
    "TrainOptions": "workflows.train",
    "TrainResult": "head.training",
    "TrainedModel": "workflows.train",
    "TrainingError": "errors",
    "TrainingStep": "head.softmax",
    "UnreachableError": "errors",
    "Vectors": "store.vectors",
    "WatchImages": "transforms.streaming",
    "WorkerError": "errors",
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
    "Bottleneck": "Embedding",
    "BottleneckModelHandler": "EmbeddingModelHandler",
    "ComputeBottlenecks": "ComputeEmbeddings",
    "Job": "ScoreOptions",
    "Rule": "AcceptanceRule",
    "ScoreBottlenecks": "ScoreEmbeddings",
    "classify_pictures": "classify_images",
}
"""Old names -> new ones; they work in 0.2 and go in 0.3, by the rule of one minor version."""

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    return _imported("beam_flowers", name, _HOMES, _DEPRECATED)


def _imported(
    package: str, name: str, homes: Mapping[str, str], deprecated: Mapping[str, str]
) -> Any:
    """Imports a name of a package when it is first asked for; old names warn.

    Args:
        package: full name of the package, whose `__getattr__` calls this.
        name: attribute of the package.
        homes: modules below the package, by name.
        deprecated: new names, by old ones.
    """
    if name in deprecated:
        old, name = name, deprecated[name]
        short = package.rpartition(".")[2]
        text = f"{short}.{old} is now {short}.{name}; the old name goes in 0.3"
        warn(text, DeprecationWarning, stacklevel=3)
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(f"{package}.{homes[name]}"), name)
