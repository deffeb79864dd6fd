"""The transforms for Beam YAML under the names that users' pipelines give as providers.

Stays for good: `beam_flowers.yaml_transforms.FindImages` stands in files that are not ours.
"""

from beam_flowers.transforms.beam_yaml import ComputeBottlenecks as ComputeBottlenecks
from beam_flowers.transforms.beam_yaml import FindImages as FindImages
from beam_flowers.transforms.beam_yaml import ReadStore as ReadStore
from beam_flowers.transforms.beam_yaml import ScoreBottlenecks as ScoreBottlenecks
from beam_flowers.transforms.beam_yaml import ScoreImages as ScoreImages
from beam_flowers.transforms.beam_yaml import WatchImages as WatchImages
from beam_flowers.transforms.beam_yaml import WriteStore as WriteStore
