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

_NAMES = {
    "backbones.catalogue": "Backbone",
    "backbones.engine": "Engine",
    "backbones.resolve": "ResolvedBackbone resolve",
    "errors": (
        "BackboneError BackboneFieldError BeamFlowersError FieldError HeaderError ImageError "
        "InputError InputFieldError ModelError ModelFieldError OutputError PartDamagedError "
        "PartLostError StoreError StoreFieldError TrainingError UnreachableError WorkerError"
    ),
    "head.bundle": "Bundle check_model_folder read_bundle write_bundle",
    "head.examples": "Examples",
    "head.image_classifier": "ImageClassifierOptions",
    "head.lbfgs": "LbfgsOptions",
    "head.metrics": "Metrics",
    "head.retrain": "RetrainOptions",
    "head.softmax": "Head TrainingStep",
    "head.split": "SplitOptions",
    "head.store_examples": "StoredExamples",
    "head.sweep": "CrossValidation SweepOptions SweepTrial",
    "head.temperature": "Calibration",
    "head.training": "TrainResult",
    "images.decode": "decode",
    "images.find": "find_images",
    "images.outputs": "Writing",
    "images.recipe": "Limits PixelRecipe",
    "records": "DecodedImage Embedding HiddenFile Image Ranked Reject RootListed Score",
    "scoring.answer": "Agreement Confusion ScoreAnswer",
    "scoring.copying": "CopiedImages",
    "scoring.decision": "AcceptanceRule OperatingPoint ThresholdResult Thresholds",
    "scoring.ranking": "Labeller Ranking",
    "scoring.table": "ScoreLayout",
    "store.history": "open_dataset",
    "store.vectors": "Vectors",
    "transforms.compute": "ComputeEmbeddings ComputedImages",
    "transforms.find": "FindImages FoundImages ImageContents ReadImages",
    "transforms.label": "ScoreEmbeddings ScoreImages ScoredImages",
    "transforms.ml_transform": "ImageEmbeddings",
    "transforms.options": "pipeline_options",
    "transforms.read_write": "ReadStore WriteScores WriteStore",
    "transforms.run_inference": (
        "EmbeddingModelHandler NewestLabeller NewestModelHandler ScoreModelHandler"
    ),
    "transforms.streaming": "WatchImages",
    "workflows.classify": "classify_images",
    "workflows.embed": "RunOptions embed_images",
    "workflows.evaluate": "EvaluatedModel EvaluationJob evaluate_model",
    "workflows.progress": "Progress ProgressState",
    "workflows.score": "ScoreSummary score_images",
    "workflows.score_options": "ScoreOptions",
    "workflows.summary": "EmbedSummary",
    "workflows.train": "TrainOptions TrainedModel train_model",
}
"""Public names by the modules that have them."""

_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

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
__version__ = "0.2.0"


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
