"""Takes the output of a network that is a vector of its images, and no scores of classes."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.backbones.tf_runtime import tensorflow, vector_of
from beam_flowers.errors import BackboneError

OUTPUT_FLAG = "--backbone-output"

_SCORES = ("softmax", "sigmoid")

_NAMES = re.compile(r"predict|logit|classif|prob|softmax", re.IGNORECASE)
"""Names of layers and outputs that are classes, although no function makes scores of them."""

_CLASSES = {1000, 1001, 21841, 21842, 21843, 11221, 365}
"""Numbers of classes of ImageNet in its editions, and of Places: such a last layer gives logits."""


class _Classifier(NamedTuple):
    """Describes the end of a network that gives classes.

    Attributes:
        layer: name of the layer.
        before: name of the layer whose output it takes; empty if it is not known.
    """

    layer: str
    before: str


def of_keras(model: Any, path: str, backbone: ResolvedBackbone) -> Any:
    """Returns a Keras model that ends in the layer asked for, or in its own vector.

    Raises:
        BackboneError: it has no such layer; or none was asked for and it ends in classes.
    """
    import keras

    output = backbone.row.output
    if not output:
        _refuse(None if backbone.is_known else _keras_classifier(model), path)
        return model
    names = [layer.name for layer in model.layers]
    if output not in names:
        raise BackboneError(
            f"{path!r} has no layer {output!r} for {OUTPUT_FLAG}; its last ones are "
            f"{', '.join(names[-8:])}"
        )
    return keras.Model(model.inputs, model.get_layer(output).output)


def _refuse(classifier: _Classifier | None, path: str) -> None:
    if classifier is None:
        return
    cure = f"{OUTPUT_FLAG} {classifier.before} takes the vector that goes into it"
    if not classifier.before:
        cure = f"give the layer before it as {OUTPUT_FLAG}, or save the network without it"
    raise BackboneError(
        f"{path!r} ends in scores of classes, its layer {classifier.layer!r}, which are worse for "
        f"other labels than what they are made of: {cure} (in Python output=); {OUTPUT_FLAG} "
        f"{classifier.layer} insists on the scores"
    )


_PASSING = {"Dropout", "Flatten", "Reshape", "Identity", "ActivityRegularization"}


def _keras_classifier(model: Any) -> _Classifier | None:
    layer, has_scores, last = _source(model.outputs[0]), False, ""
    while layer is not None:
        kind = type(layer).__name__
        scores = kind == "Softmax" or (kind == "Activation" and _activation(layer) in _SCORES)
        if not scores and kind not in _PASSING:
            break
        last = last or (layer.name if scores else "")
        has_scores = has_scores or scores
        layer = _source(layer.input)
    if layer is None or type(layer).__name__ not in ("Dense", "Conv2D"):
        return None
    count = int(layer.output.shape[-1])
    gives_logits = _activation(layer) == "linear" and (
        _NAMES.search(layer.name) is not None or count in _CLASSES
    )
    if not (has_scores or gives_logits or _activation(layer) in _SCORES):
        return None
    before = _source(layer.input)
    while before is not None and type(before).__name__ == "Dropout":
        before = _source(before.input)
    return _Classifier(last or layer.name, before.name if before is not None else "")


def _source(tensor: Any) -> Any:
    """Returns the layer that makes a symbolic tensor; None for several tensors and an input."""
    history = getattr(tensor, "_keras_history", None)
    layer = history.operation if history else None
    return None if layer is None or type(layer).__name__ == "InputLayer" else layer


def _activation(layer: Any) -> str:
    return str(getattr(getattr(layer, "activation", None), "__name__", ""))


def of_graph(function: Any, path: str, backbone: ResolvedBackbone) -> Any:
    """Returns a SavedModel's constant graph, unless it ends in classes.

    Raises:
        BackboneError: it ends in classes, and no output was asked for.
    """
    if not backbone.row.output and not backbone.is_known:
        _refuse(_graph_classifier(inlined(function)), path)
    return function


def inlined(function: Any) -> Any:
    """Returns a function whose variables are constants and whose calls are expanded."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)


_KEEPING = {"Identity", "Reshape", "Squeeze", "Cast", "IdentityN"}


def _graph_classifier(function: Any) -> _Classifier | None:
    operation, score = _back(function.outputs[0].op), ""
    if operation.type in ("Softmax", "Sigmoid"):
        score = operation.name
        operation = _back(operation.inputs[0].op)
    count = function.outputs[0].shape[-1]
    name = operation.name
    if operation.type in ("BiasAdd", "Add", "AddV2"):
        operation = _back(operation.inputs[0].op)
    if operation.type not in ("MatMul", "Conv2D"):
        # A softmax gives scores, whatever it takes.
        return _Classifier(score, "") if score.endswith(("Softmax", "softmax")) else None
    last = name.rpartition("/")[0].rpartition("/")[2] or name
    if not score and count not in _CLASSES and _NAMES.search(last) is None:
        return None
    return _Classifier(score or name, _back(operation.inputs[0].op).name)


def _back(operation: Any) -> Any:
    """Returns the operation before those that keep the values."""
    while operation.type in _KEEPING and len(operation.inputs):
        operation = operation.inputs[0].op
    return operation


def cut_graph(function: Any, path: str, output: str, count: int) -> Any:
    """Returns the part of a SavedModel's function that ends in a node.

    Args:
        function: pixels → all outputs.
        path: of the network, for errors.
        output: name of the node, or its last parts if no other node has them.
        count: N images, -1 if it is open.

    Raises:
        BackboneError: there is no such node, or there are several.
    """
    tf = tensorflow()
    whole = inlined(function)
    graph = whole.graph.as_graph_def()
    names = [node.name for node in graph.node]
    found = [name for name in names if name == output] or [
        name for name in names if name.endswith(f"/{output}")
    ]
    if len(found) != 1:
        close = ", ".join([name for name in names if output in name][-8:]) or "none like it"
        raise BackboneError(
            f"{path!r} has {len(found)} outputs or nodes {output!r} for {OUTPUT_FLAG}, and one is "
            f"wanted; it has: {close}"
        )
    pixels = whole.inputs[0]

    def part(values: Any) -> Any:
        (tensor,) = tf.graph_util.import_graph_def(
            graph, input_map={pixels.name: values}, return_elements=[f"{found[0]}:0"], name=""
        )
        return vector_of(tensor, repr(path), count)

    return tf.compat.v1.wrap_function(part, [tf.TensorSpec(pixels.shape, pixels.dtype)])
