"""Trains a backbone with a softmax layer on images, and saves it without that layer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones import efficientnet_lite, keras_models, saved_model, weights
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.network_input import network_input
from beam_flowers.backbones.preprocessor_config import CONFIG_FILE, config_of
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.backbones.tf_runtime import named_outputs, tensorflow, vector_of
from beam_flowers.errors import BackboneError

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Classes = npt.NDArray[np.intp]

_Call = Callable[[Any], Any]


@dataclass(frozen=True)
class Descent:
    """Settings of AdamW (Loshchilov and Hutter, 2019) on the cross entropy of distorted images.

    Attributes:
        learning_rate: of a step; see `Tuner.step`.
        momentum: 0..1, share that the mean of the gradients keeps in a step.
        weight_decay: share of the kernels that a step of the learning rate 1 takes away.
        dropout: share of an embedding's numbers set to 0 in training.
        label_smoothing: share of the target that is spread over all labels, 0..1.
        flip: True to mirror every other image.
        crop: most of an image's area that a random crop leaves out, 0..1.
        brightness: images are multiplied by 1 - brightness to 1 + brightness.
    """

    learning_rate: float
    momentum: float
    weight_decay: float
    dropout: float
    label_smoothing: float
    flip: bool
    crop: float
    brightness: float


_SQUARES_KEPT, _EPSILON = 0.999, 1e-8
"""Adam's beta2 and epsilon, as its paper has them."""


class Tuner:
    """A backbone and its softmax layer in training.

    All kernels and biases train. Batch norms that are not folded into them keep their means and
    variances, as small batches would spoil these; their scales and offsets train.

    Attributes:
        recipe: of the pixels to train on, the same that `embed` uses for the saved backbone.
    """

    def __init__(
        self, backbone: ResolvedBackbone, kernel: Floats, bias: Floats, descent: Descent, seed: int
    ) -> None:
        """Begins with the backbone's weights and a layer that labels its embeddings.

        For the rest of the process TensorFlow becomes deterministic and, unless it runs already,
        uses all cores for one batch.

        Args:
            backbone: to begin from.
            kernel: float32 [D, C] of the layer.
            bias: float32 [C].
            descent: settings.
            seed: of dropout and distortions.

        Raises:
            BackboneError: if the backbone has no weights that can be trained.
        """
        tf = tensorflow()
        # `embed` runs an image on each core; training runs one batch on all of them.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(0)
        tf.config.experimental.enable_op_determinism()
        size = load(backbone).input_size
        self.recipe = backbone.row.recipe(*size)
        height, width = size
        side = height if height == width else None
        self._row = replace(backbone.row, input_size=side, output="")
        self._spec = tf.TensorSpec([None, *size, 3], tf.float32, "pixels")
        self._vectors = _backbone(backbone)
        self._kernel, self._bias = tf.Variable(kernel), tf.Variable(bias)
        trainable = _trainable(self._vectors, (*size, 3), backbone.row.name)
        self._variables = [*trainable, self._kernel, self._bias]
        self._means, self._squares = (
            [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._variables]
            for _ in range(2)
        )
        self._descent, self._random, self._steps = descent, np.random.default_rng(seed), 0
        pixels = tf.TensorSpec(self._spec.shape, tf.uint8)
        classes, pair = tf.TensorSpec([None], tf.int64), tf.TensorSpec([2], tf.int64)
        boxes, factors = tf.TensorSpec([None, 4]), tf.TensorSpec([None])
        pace = tf.TensorSpec([3])
        self._update = _function(self._train, pixels, classes, boxes, factors, pace, pair)
        self._embed = _function(lambda pixels: self._vectors(self._input(pixels)), pixels)

    def step(self, pixels: Pixels, classes: Classes, pace: float = 1.0) -> tuple[float, int]:
        """Trains one step on images, uint8 [N, height, width, 3], of the classes intp [N].

        Args:
            pixels: the images; they are distorted by chance.
            classes: their classes.
            pace: factor of the learning rate.

        Returns:
            Mean cross entropy with the smoothed targets, and number of right answers, both
            with distortions and dropout and before the step.
        """
        self._steps += 1
        boxes, factors = _distortions(self._random, len(pixels), self._descent)
        seed = self._random.integers(2**62, size=2)
        # The means begin at 0; these powers take out what that does to the first steps.
        powers = (self._descent.momentum**self._steps, _SQUARES_KEPT**self._steps)
        rates = np.array([self._descent.learning_rate * pace, *powers], np.float32)
        loss, right = self._update(pixels, classes, boxes, factors, rates, seed)
        return float(loss), int(right)

    def embed(self, pixels: Pixels) -> Floats:
        """Computes embeddings of images, float32 [N, D], without dropout."""
        vectors: Floats = self._embed(pixels).numpy()
        return vectors

    @property
    def layer(self) -> tuple[Floats, Floats]:
        """Weights, float32 [D, C], and bias, float32 [C], of the softmax layer."""
        return self._kernel.numpy(), self._bias.numpy()

    def state(self) -> list[Floats]:
        """Returns a copy of all weights that train, for `restore`."""
        return [variable.numpy() for variable in self._variables]

    def restore(self, state: Sequence[Floats]) -> None:
        """Sets all weights that train to those of `state`."""
        for variable, values in zip(self._variables, state, strict=True):
            variable.assign(values)

    def save(self, folder: str) -> None:
        """Writes the backbone, without the layer, as a SavedModel, and its recipe beside it.

        The recipe is that of the backbone from which training began.
        """
        tf = tensorflow()
        module = tf.Module()
        module.__call__ = _function(self._vectors, self._spec)
        function = module.__call__.get_concrete_function()
        # Only variables that an attribute of the module refers to are saved. The graph's are a
        # set: sorted by their use, the same backbone gives the same files.
        use = {id(handle): number for number, handle in enumerate(function.captured_inputs)}
        module.kept = sorted(function.graph.variables, key=lambda v: use[id(v.handle)])
        tf.saved_model.save(module, folder)
        recipe = json.dumps(config_of(self._row), indent=2)
        Path(folder, CONFIG_FILE).write_text(f"{recipe}\n")

    def _input(self, pixels: Any) -> Any:
        return network_input(tensorflow().cast(pixels, tensorflow().float32), self._row)

    def _train(
        self, pixels: Any, classes: Any, boxes: Any, factors: Any, rates: Any, seed: Any
    ) -> tuple[Any, Any]:
        tf, descent, labels = tensorflow(), self._descent, self._bias.shape[0]
        size, count = list(self._spec.shape[1:3]), tf.shape(pixels)[0]
        cut = tf.image.crop_and_resize(tf.cast(pixels, tf.float32), boxes, tf.range(count), size)
        bright = tf.clip_by_value(cut * factors[:, tf.newaxis, tf.newaxis, tf.newaxis], 0, 255)
        with tf.GradientTape() as tape:
            vectors = self._vectors(self._input(bright))
            kept = tf.nn.experimental.stateless_dropout(vectors, descent.dropout, seed)
            logits = kept @ self._kernel + self._bias
            smoothing = descent.label_smoothing
            targets = tf.one_hot(classes, labels) * (1 - smoothing) + smoothing / labels
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        gradients = tape.gradient(loss, self._variables)
        states = zip(self._variables, self._means, self._squares, gradients, strict=True)
        for variable, mean, square, gradient in states:
            if len(variable.shape) > 1:
                variable.assign_sub(rates[0] * descent.weight_decay * variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=mean.handle,
                v=square.handle,
                beta1_power=rates[1],
                beta2_power=rates[2],
                lr=rates[0],
                beta1=descent.momentum,
                beta2=_SQUARES_KEPT,
                epsilon=_EPSILON,
                grad=gradient,
            )
        hits = tf.cast(tf.argmax(logits, 1) == classes, tf.int32)
        return loss, tf.reduce_sum(hits)


def _backbone(backbone: ResolvedBackbone) -> _Call:
    """Returns the backbone as a call: `network_input`'s [N, height, width, 3] → [N, D]."""
    with weights.local_copy(backbone.place, backbone.kind) as local:
        call = _read(local, backbone)
    # Keras models end in the layer asked for already.
    output = backbone.row.output if backbone.kind == "saved-model" else ""

    def vectors(pixels: Any) -> Any:
        outputs = call(pixels)
        if output and output not in named_outputs(outputs):
            raise BackboneError(
                f"{backbone.place!r} cannot be trained up to {output!r}, a node inside of a "
                "SavedModel: export it with that as its output, or as a .keras file"
            )
        return vector_of(outputs, repr(backbone.place), -1, output)

    return vectors


def _read(local: str, backbone: ResolvedBackbone) -> _Call:
    tf = tensorflow()
    if backbone.kind == "efficientnet-lite":
        architecture, arrays = efficientnet_lite.read(local)
        variables = {name: tf.Variable(array, name=name) for name, array in arrays.items()}
        return lambda x: efficientnet_lite.vectors(x, architecture["blocks"], variables)
    if backbone.kind == "saved-model":
        return saved_model.load(local, backbone.trusted).call
    if backbone.kind == "keras-file":
        model = keras_models.read_file(local, backbone)
    else:
        model = keras_models.read_application(local, backbone.row)
    return lambda x: model(x, training=False)


def _trainable(vectors: _Call, shape: tuple[int, ...], name: str) -> list[Any]:
    """Returns the trainable variables that the embeddings depend on."""
    tf = tensorflow()
    try:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(vectors(tf.zeros([2, *shape])))
        watched = tape.watched_variables()
        gradients = tape.gradient(total, watched)
    except (LookupError, TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"{name!r} cannot be trained on batches; export it with an open number of images and "
            f"with its gradients: {reason}"
        ) from error
    trainable = [v for v, g in zip(watched, gradients, strict=True) if g is not None]
    if not trainable:
        raise BackboneError(
            f"{name!r} has no trainable variables: it was saved with its weights as constants, or "
            "not to be trained; fine-tune a named backbone, a .keras file or a SavedModel that "
            "was exported with trainable variables"
        )
    return trainable


def _distortions(
    random: np.random.Generator, count: int, descent: Descent
) -> tuple[Floats, Floats]:
    """Draws boxes, float32 [N, 4] as y0, x0, y1, x1 of 0..1, and factors, float32 [N], of images.

    The boxes are squares of 1 - `crop` to 1 of the area; those to mirror have their sides swapped.
    """
    sides = np.sqrt(random.uniform(1 - descent.crop, 1, count))
    top, left = random.uniform(0, 1, (2, count)) * (1 - sides)
    boxes = np.stack([top, left, top + sides, left + sides], axis=1)
    mirrored = (random.random(count) < 0.5) & descent.flip
    boxes[mirrored] = boxes[mirrored][:, [0, 3, 2, 1]]
    factors = random.uniform(1 - descent.brightness, 1 + descent.brightness, count)
    return boxes.astype(np.float32), factors.astype(np.float32)


def _function(function: Callable[..., Any], *specs: Any) -> Any:
    return tensorflow().function(function, input_signature=specs, autograph=False)
