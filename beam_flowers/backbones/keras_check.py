"""Checks that a `.keras` file names only classes that compute, before Keras loads it.

Keras' safe mode is the second defence, in releases where it holds.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from beam_flowers import files
from beam_flowers.errors import BackboneError
from beam_flowers.files.text import MOST_SHOWN

SAFE_KERAS = "keras>=3.12.4,!=3.13.*,!=3.14.*,!=3.15.0"
"""Releases whose safe mode has no known bypass, in pip's syntax.

3.12 is the last series for Python 3.10. 3.12.4 and 3.15.1 are the first two with all repairs up to
August 2026: CVE-2025-1550, -8747, -9905, -9906, -12058, -12060, -49655 and CVE-2026-0897, -1462,
-1669, -12481, links in HDF5 files, and archives that grow. 3.13 and 3.14 did not get them.
"""

_MOST_ENTRIES = 10_000
_MOST_CONFIG = 2**26
_MOST_RATIO = 100
_FREE = 2**24
"""Bytes that an entry of any ratio may hold: small JSON with many zeros compresses well."""

_LAYERS = """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop
    Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D
    ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D CutMix Dense DepthwiseConv1D
    DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten GRU
    GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GroupNormalization GroupQueryAttention HashedCrossing Hashing Identity InputLayer LSTM LSTMCell
    LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum
    MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline
    RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter
    RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur
    RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation
    RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom ReLU RepeatVector
    Rescaling Reshape Resizing ReversibleEmbedding STFTSpectrogram SeparableConv1D SeparableConv2D
    SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization UpSampling1D
    UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
# Excluded: Lambda, TFSMLayer, TorchModuleWrapper, JaxLayer and FlaxLayer, which run code, and
# StringLookup, IntegerLookup and TextVectorization, which read a file by its name.

_MODELS = "Functional Model Sequential"

CLASSES: dict[str, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        "keras": f"{_MODELS} DTypePolicy Variable",
        "keras.models": _MODELS,
        "keras.src.models.functional": "Functional",
        "keras.src.models.model": "Model",
        "keras.src.models.sequential": "Sequential",
        "keras.src.ops.core": "Cast ConvertToTensor Slice StopGradient Unstack",
        "keras.layers": _LAYERS,
        "keras.src.applications.convnext": "LayerScale",
        "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
        "keras.dtype_policies": "DTypePolicy DTypePolicyMap FloatDTypePolicy QuantizedDTypePolicy",
        "keras.initializers": """
            Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer
            LecunNormal LecunUniform Ones Orthogonal OrthogonalInitializer RandomNormal
            RandomUniform STFT STFTInitializer TruncatedNormal VarianceScaling Zeros
        """,
        "keras.regularizers": "L1 L1L2 L2 OrthogonalRegularizer",
    }.items()
}
"""Classes that a `.keras` file may name, by their module in the file."""

_CLASS_MODULES = re.compile(
    r"keras\.src\.ops\.(image|linalg|math|nn|numpy)|keras\.(losses|metrics|optimizers)(\.schedules)?"
)
"""Modules with only allowed classes: operations of a graph, losses, metrics and optimizers."""

# Functions begin with a small letter: Keras would call one in place of a class.
_CLASS_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")

_VALUES = {
    "__bytes__",
    "__ellipsis__",
    "__keras_tensor__",
    "__numpy__",
    "__slice__",
    "__tensor__",
}

_ACTIVATIONS = """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh
    leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink
    softmax softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh
    tanh_shrink threshold
"""

ACTIVATIONS = frozenset(_ACTIVATIONS.split())
"""Functions that a `.keras` file may name."""


def require_safe_keras(path: str) -> None:
    """Checks that the installed Keras has a safe mode without known bypass.

    Raises:
        BackboneError: Keras is another release, or not installed.
    """
    try:
        version = metadata.version("keras")
    except metadata.PackageNotFoundError:
        version = "none"
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if (3, 12, 4) <= numbers < (3, 13) or numbers >= (3, 15, 1):
        return
    raise BackboneError(
        f"{path!r} needs Keras 3.12.4, or from Python 3.11 on 3.15.1 or later; here is {version}. "
        "In other releases a file may run any code although Keras was asked to load it safely: pip "
        f"install '{SAFE_KERAS}', or export the network as a SavedModel"
    )


def require_no_code(path: str) -> None:
    """Checks that a `.keras` file names no class that could run code, and has a bounded size.

    Raises:
        BackboneError: it names such a class, is too large, or is not a `.keras` file.
    """
    try:
        with files.open_read(path) as file, zipfile.ZipFile(file) as archive:
            _require_plain(path, archive)
            config = json.loads(archive.read("config.json"))
    except (BackboneError, MemoryError):
        raise
    except Exception as error:  # Those of damaged archives have no common base.
        reason = str(error)[:MOST_SHOWN]
        raise BackboneError(f"{path!r} is not a .keras file, or damaged: {reason}") from error
    if not isinstance(config, dict):
        raise BackboneError(f"{path!r} is not a .keras file: its config.json describes no object")
    # Keras does not read it, as the model is not compiled; users' own losses are named there.
    config.pop("compile_config", None)
    for node in _objects(config):
        if not _is_allowed(node):
            name, module = node.get("class_name"), node.get("module")
            if name == "function":
                name = node.get("config")
            raise BackboneError(
                f"{path!r} holds {str(name)[:100]!r} of {str(module)[:100]!r}, which is not among "
                "the layers that only compute and could run any code when it is loaded; export "
                "the model as a SavedModel if you trust it"
            )


def _require_plain(path: str, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    problem = None
    if len(names) > _MOST_ENTRIES:
        problem = f"has {len(names)} entries, and more than {_MOST_ENTRIES} are not read"
    elif len(set(names)) < len(names):
        problem = "holds two entries of one name"
    for entry in entries:
        parts = re.split(r"[/\\]", entry.filename)
        if ".." in parts or not parts[0] or ":" in parts[0]:
            problem = f"holds the entry {entry.filename!r}, which leads out of its folder"
        elif (entry.external_attr >> 28) == 0o12:  # S_IFLNK >> 12
            problem = f"holds the link {entry.filename!r}"
        elif entry.file_size > _FREE + _MOST_RATIO * entry.compress_size:
            problem = f"holds {entry.filename!r}, which would grow more than {_MOST_RATIO} fold"
        elif entry.filename == "config.json" and entry.file_size > _MOST_CONFIG:
            problem = f"has a config.json of more than {_MOST_CONFIG >> 20} MiB"
    if problem:
        raise BackboneError(f"{path!r} {problem}: save the model again as .keras")


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields all descriptions of objects at any depth."""
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _is_allowed(node: dict[str, Any]) -> bool:
    name, module = node["class_name"], node.get("module")
    if not isinstance(name, str) or not isinstance(module, str | None):
        return False
    if name == "function":
        registered = node.get("registered_name") in (None, "function", node.get("config"))
        return module == "builtins" and registered and str(node.get("config")) in ACTIVATIONS
    # Another registered name is that of a user's own class, which this process may know.
    if node.get("registered_name") not in (None, name):
        return False
    if module is None:
        return name in _VALUES or any(name in names for names in CLASSES.values())
    if name in CLASSES.get(module, ()):
        return True
    return bool(_CLASS_MODULES.fullmatch(module) and _CLASS_NAME.fullmatch(name))
