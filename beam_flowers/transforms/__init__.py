"""All of Beam but its file systems: transforms, plans, workers, runners.

The names below are imported when first asked for: modules of this package that a run needs before
Beam is imported (`preflight`, `prefetch`) must not wait two seconds for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_flowers.transforms.ptransforms import REJECTS as REJECTS
    from beam_flowers.transforms.ptransforms import ComputeBottlenecks as ComputeBottlenecks
    from beam_flowers.transforms.ptransforms import FindImages as FindImages
    from beam_flowers.transforms.ptransforms import ReadImages as ReadImages
    from beam_flowers.transforms.ptransforms import ReadStore as ReadStore
    from beam_flowers.transforms.ptransforms import ScoreBottlenecks as ScoreBottlenecks
    from beam_flowers.transforms.ptransforms import Scored as Scored
    from beam_flowers.transforms.ptransforms import ScoreImages as ScoreImages
    from beam_flowers.transforms.ptransforms import WriteStore as WriteStore

__all__ = [
    "REJECTS",
    "ComputeBottlenecks",
    "FindImages",
    "ReadImages",
    "ReadStore",
    "ScoreBottlenecks",
    "ScoreImages",
    "Scored",
    "WriteStore",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'beam_flowers.transforms' has no attribute {name!r}")
    return getattr(import_module("beam_flowers.transforms.ptransforms"), name)
