"""Chooses which tensor of an ONNX network is the vector of an image."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

from beam_flowers.backbones.onnx_file import Graph
from beam_flowers.errors import BackboneError

Pooling = Literal["class", "mean"]

OUTPUT_FLAG = "--backbone-output"

_VECTORS = ("image_embeds", "pooler_output")
_TOKENS = "last_hidden_state"
_CLASSES = re.compile(r"logits|prob(abilitie)?s?|scores|softmax", re.IGNORECASE)
_IMAGENET = (1000, 1001, 21_841, 21_843)
"""Classes of ImageNet-1k and -21k, with and without those that TensorFlow added."""
_SCORES = ("Softmax", "LogSoftmax", "Sigmoid")
_PASSING = ("Identity", "Cast", "Squeeze", "Flatten", "Reshape")
_PRODUCTS = ("Gemm", "MatMul", "QLinearMatMul", "MatMulInteger")


class Output(NamedTuple):
    """Names the tensor of the vectors.

    Attributes:
        tensor: its name in the graph.
        pooling: how the vectors of an image's tokens become one: that of the first, the class
            token, or their mean; empty for a tensor of one vector an image.
    """

    tensor: str
    pooling: Pooling | Literal[""] = ""


def parse_output(text: str) -> Output:
    """Returns the output that `choose_output` has named."""
    named, _, tensor = text.partition(":")
    for pooling in get_args(Pooling):
        if named == pooling:
            return Output(tensor or _TOKENS, pooling)
    return Output(text)


def choose_output(graph: Graph, path: str, wanted: str) -> str:
    """Returns the output of a network as text, which `parse_output` takes apart.

    It is the name of a tensor; or `class` or `mean` of `last_hidden_state`, or as in `mean:NAME`
    that of another tensor.

    Args:
        graph: what its file says.
        path: of that file, for messages.
        wanted: what the user asks for; empty for the vector, if the network has one.

    Raises:
        BackboneError: there is no such tensor, or only what the user has to choose from.
    """
    names = [value.name for value in graph.outputs]
    made = {name for node in graph.nodes for name in node.outputs if name}
    if wanted:
        if parse_output(wanted).tensor in made:
            return wanted
        raise BackboneError(
            f"{path!r} has no tensor {parse_output(wanted).tensor!r}; its outputs are "
            f"{', '.join(names)}. Give one of them, or a tensor inside, as {OUTPUT_FLAG} NAME, or "
            "class:NAME or mean:NAME if it holds the vectors of tokens"
        )
    if found := next((name for name in _VECTORS if name in names), None):
        return found
    if _TOKENS in names:
        raise BackboneError(
            f"{path!r} gives the vectors of an image's tokens ({_TOKENS}) and none of the image: "
            f"choose {OUTPUT_FLAG} class, the class token's (DINOv2, ViT), or mean, of all tokens "
            "(networks without a class token, such as SigLIP and ConvNeXt)"
        )
    if len(names) != 1:
        raise BackboneError(
            f"{path!r} has the outputs {', '.join(names)}: say which one is the vector, as "
            f"{OUTPUT_FLAG}"
        )
    (output,) = graph.outputs
    classes = output.dims[-1] in _IMAGENET if output.dims else False
    if classes or _CLASSES.search(output.name) or _gives_scores(graph, output.name):
        raise BackboneError(
            f"{path!r} gives scores of classes ({output.name}), not vectors: give the tensor "
            f"before them as {OUTPUT_FLAG} {_before_classes(graph, output.name) or 'NAME'}"
        )
    return output.name


def pooled_axes(output: Output, rank: int, is_last: bool, path: str) -> tuple[int, ...]:
    """Returns the axes over which the vectors of a tensor are averaged.

    Args:
        output: the tensor, and how it is pooled.
        rank: number of its axes: [N, D], [N, tokens, D], or a map of height and width.
        is_last: True if a map is [N, h, w, D] and not [N, D, h, w].
        path: of the graph, for messages.

    Raises:
        BackboneError: the tensor has no vector, or none by that pooling.
    """
    if rank == 4 and output.pooling != "class":
        return (1, 2) if is_last else (2, 3)
    if rank == 3 and output.pooling:
        return (1,) if output.pooling == "mean" else ()
    if rank == 2 and not output.pooling:
        return ()
    kind = {2: "one vector an image", 3: "vectors of tokens", 4: "a map of vectors"}.get(rank)
    cure = {
        2: f"give {OUTPUT_FLAG} {output.tensor}",
        3: f"give {OUTPUT_FLAG} class:{output.tensor} or mean:{output.tensor}",
        4: f"give {OUTPUT_FLAG} mean:{output.tensor}",
    }.get(rank, f"give another tensor as {OUTPUT_FLAG}")
    raise BackboneError(
        f"{path!r}: {output.tensor!r} is {kind or f'a tensor of {rank} axes'}, which makes no "
        f"vector by {output.pooling or 'itself'}: {cure}"
    )


def _gives_scores(graph: Graph, tensor: str) -> bool:
    makers = {name: node for node in graph.nodes for name in node.outputs}
    for _ in graph.nodes:
        node = makers.get(tensor)
        if node is None or node.operator not in _PASSING:
            return node is not None and node.operator in _SCORES
        tensor = node.inputs[0] if node.inputs else ""
    return False


def _before_classes(graph: Graph, tensor: str) -> str | None:
    """Returns the tensor that the last layer takes, if that is a product with weights."""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    # A path of the graph is no longer than its nodes; a damaged one may have circles.
    for _ in graph.nodes:
        node = makers.get(tensor)
        if node is None or not node.inputs:
            return None
        computed = next((name for name in node.inputs if name in makers), None)
        if node.operator in _PRODUCTS:
            return computed
        if node.operator not in (*_SCORES, *_PASSING, "Add") or computed is None:
            return None
        tensor = computed
    return None
