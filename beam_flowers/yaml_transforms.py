"""Keeps the names of transforms that users' Beam YAML gives as providers.

This module keeps its name: users' files name `beam_flowers.yaml_transforms.FindImages`.
"""

from typing import Any

from beam_flowers import _imported
from beam_flowers.transforms.beam_yaml import ComputeEmbeddings as ComputeEmbeddings
from beam_flowers.transforms.beam_yaml import FindImages as FindImages
from beam_flowers.transforms.beam_yaml import ReadStore as ReadStore
from beam_flowers.transforms.beam_yaml import ScoreEmbeddings as ScoreEmbeddings
from beam_flowers.transforms.beam_yaml import ScoreImages as ScoreImages
from beam_flowers.transforms.beam_yaml import WatchImages as WatchImages
from beam_flowers.transforms.beam_yaml import WriteStore as WriteStore

_DEPRECATED = {
    "ComputeBottlenecks": "ComputeEmbeddings",
    "ScoreBottlenecks": "ScoreEmbeddings",
}
"""Old names -> new ones; they work in 0.2 and go in 0.3."""


def __getattr__(name: str) -> Any:
    homes = dict.fromkeys(_DEPRECATED.values(), "transforms.beam_yaml")
    return _imported("beam_flowers", name, homes, _DEPRECATED)
