"""Puts the package into Beam: transforms, plans, checks of workers, runners.

The names below are imported when first asked for: modules of this package that a run needs before
Beam is imported (`preflight`, `prefetch`) must not wait two seconds for it.
"""

from typing import TYPE_CHECKING, Any

from beam_flowers import _imported

if TYPE_CHECKING:
    from beam_flowers.transforms.compute import ComputedImages as ComputedImages
    from beam_flowers.transforms.compute import ComputeEmbeddings as ComputeEmbeddings
    from beam_flowers.transforms.find import REJECTS as REJECTS
    from beam_flowers.transforms.find import FindImages as FindImages
    from beam_flowers.transforms.find import FoundImages as FoundImages
    from beam_flowers.transforms.find import ImageContents as ImageContents
    from beam_flowers.transforms.find import ReadImages as ReadImages
    from beam_flowers.transforms.label import ScoredImages as ScoredImages
    from beam_flowers.transforms.label import ScoreEmbeddings as ScoreEmbeddings
    from beam_flowers.transforms.label import ScoreImages as ScoreImages
    from beam_flowers.transforms.read_write import ReadStore as ReadStore
    from beam_flowers.transforms.read_write import WriteScores as WriteScores
    from beam_flowers.transforms.read_write import WriteStore as WriteStore

_NAMES = {
    "compute": "ComputeEmbeddings ComputedImages",
    "find": "FindImages FoundImages ImageContents REJECTS ReadImages",
    "label": "ScoreEmbeddings ScoreImages ScoredImages",
    "read_write": "ReadStore WriteScores WriteStore",
}
"""Public names by the modules that have them."""

_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

_DEPRECATED = {
    "ComputeBottlenecks": "ComputeEmbeddings",
    "Computed": "ComputedImages",
    "Contents": "ImageContents",
    "Found": "FoundImages",
    "ScoreBottlenecks": "ScoreEmbeddings",
    "Scored": "ScoredImages",
}
"""Old names -> new ones; they work in 0.2 and go in 0.3."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return _imported("beam_flowers.transforms", name, _HOMES, _DEPRECATED)
