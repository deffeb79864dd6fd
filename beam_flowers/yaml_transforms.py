"""Keeps the names of transforms that users' Beam YAML gives as providers.

This module keeps its name: users' files name `beam_flowers.yaml_transforms.FindImages`.
"""

from beam_flowers.transforms.beam_yaml import ComputeBottlenecks as ComputeBottlenecks
from beam_flowers.transforms.beam_yaml import FindImages as FindImages
from beam_flowers.transforms.beam_yaml import ReadStore as ReadStore
from beam_flowers.transforms.beam_yaml import ScoreBottlenecks as ScoreBottlenecks
from beam_flowers.transforms.beam_yaml import ScoreImages as ScoreImages
from beam_flowers.transforms.beam_yaml import WatchImages as WatchImages
from beam_flowers.transforms.beam_yaml import WriteStore as WriteStore
