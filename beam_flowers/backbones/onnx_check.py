"""Checks an ONNX network of a stranger before a runtime loads it.

This is not a sandbox: an allowed operation may have a bug, and any network may take too much memory
or time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from beam_flowers.backbones.onnx_file import Graph, Node, Tensor, Value, data_files
from beam_flowers.errors import BackboneError

TRUST_FLAG = "--trust-backbone"
FLOAT, FLOAT16 = 1, 10
"""Numbers of `TensorProto.DataType`."""

MOST_TENSOR_BYTES = 2**31
"""Bytes of the largest array of weights, and of the largest that a layer may make of an image."""
_MOST_WEIGHTS = 2**34
_MOST_RANK = 16
_BFLOAT16 = 16

# Bytes of a number, by `TensorProto.DataType`. No network of numbers needs strings, complex
# numbers, or those of fewer than 8 bits.
_WIDTHS = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}

_COMPUTES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
    BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil
    Celu CenterCropPad Clip Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos
    Cosh CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu Equal
    Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf
    IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization
    LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg
    NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear
    RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    RotaryEmbedding Round Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin
    Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan
    Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
COMPUTES = frozenset(_COMPUTES.split())
"""Operators of ONNX 1.19 that compute the same numbers each time, in a bounded number of steps.

Left out are those that draw by chance, loop, take strings or sequences, or decode files."""

_QUANTISED = re.compile(r"(De|Dynamic)?[Qq]uantizeLinear|QLinear.*|MatMulInteger|ConvInteger")
_TEXT = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def require_usable(graph: Graph, path: str, folder: str, trusted: bool = False) -> None:
    """Checks operators, inputs, weights and data files of a network.

    Args:
        graph: what its file says.
        path: of that file, for messages.
        folder: local folder of that file and its data files.
        trusted: takes any operator that the runtime knows, as the user trusts this network.

    Raises:
        BackboneError: names what is refused, and what to do.
    """
    image_of(graph, path)
    problem = next(_odd_parts(graph, trusted), None)
    if problem:
        raise BackboneError(f"{path!r} holds {problem}. Nothing was loaded")
    total = 0
    for tensor in graph.tensors:
        if problem := _odd_weights(tensor):
            named = f"the weights {tensor.name!r}" if tensor.name else "a constant"
            raise BackboneError(
                f"{path!r}: {named}, of the shape {list(tensor.dims)[:_MOST_RANK]}, {problem}. "
                "Nothing was loaded; get the network again, or export it again"
            )
        total += _bytes(tensor)
    if total > _MOST_WEIGHTS:
        raise BackboneError(
            f"{path!r} has weights of {total >> 30} GiB, and more than {_MOST_WEIGHTS >> 30} are "
            "not read: take a smaller network"
        )
    _require_data_inside(graph, path, folder)


def image_of(graph: Graph, path: str) -> Value:
    """Returns the only input of a network, which takes images.

    Raises:
        BackboneError: it has other inputs, or one for something else than images.
    """
    names = [value.name for value in graph.inputs]
    if texts := [name for name in names if name in _TEXT]:
        both = len(texts) < len(names)
        what = "a tower for texts beside that for images" if both else "a tower for texts"
        raise BackboneError(
            f"{path!r} is {what} (inputs {', '.join(names)}): take the file of the image tower "
            "alone, which is mostly called vision_model.onnx"
        )
    if len(names) != 1:
        raise BackboneError(
            f"{path!r} has {len(names)} inputs ({', '.join(map(repr, names[:8])) or 'none'}), and "
            "only networks of one input, the pixels, are taken: export it without the others"
        )
    (image,) = graph.inputs
    if image.data_type not in (FLOAT, FLOAT16):
        raise BackboneError(
            f"{path!r}: its input {image.name!r} is no float32 or float16, but type "
            f"{image.data_type} of ONNX: export the network without what comes before"
        )
    dims = image.dims
    if dims is None or len(dims) != 4 or is_channels_last(image) is None:
        shape = "no shape" if dims is None else f"the shape {[side or '?' for side in dims]}"
        raise BackboneError(
            f"{path!r}: its input {image.name!r} has {shape}, which is no batch of images: "
            "[N, 3, height, width] or [N, height, width, 3] are taken"
        )
    if dims[0] not in (None, 1):
        raise BackboneError(
            f"{path!r} takes {dims[0]} images at a time only: export it for one, or for any number"
        )
    return image


def is_channels_last(image: Value) -> bool | None:
    """Tells if an input is [N, h, w, 3] and not [N, 3, h, w]; None if it is neither.

    An open second side counts as channels, as PyTorch's exports leave it open.
    """
    _, channels, _, last = image.dims or (None,) * 4
    if channels == 3 or (channels is None and last != 3):
        return False
    return True if last == 3 else None


def sides_of(image: Value) -> tuple[int, int] | None:
    """Returns (height, width) of an input that fixes them; None if it leaves one open."""
    dims = image.dims or ()
    height, width = dims[1:3] if is_channels_last(image) else dims[2:4]
    return (height, width) if height and width else None


def engine_counts(graph: Graph) -> bool:
    """Tells if an engine's arithmetic decides more than last bits: in fewer bits than float32."""
    operators = {node.operator for node in (*graph.nodes, *graph.inner)}
    low = any(tensor.data_type in (FLOAT16, _BFLOAT16) for tensor in graph.tensors)
    return low or any(map(_QUANTISED.fullmatch, operators))


def _odd_parts(graph: Graph, trusted: bool) -> Iterator[str]:
    for what in graph.odd:
        yield f"{what}, which is not taken: export it again, in plain operations for inference"
    for node in (*graph.nodes, *graph.inner):
        if not trusted and not _is_plain(node):
            own = node.domain not in ("", "ai.onnx")
            where = f" of the domain {node.domain!r}" if own else ""
            why = "are not ONNX's own" if own else "may loop, draw by chance, or read more"
            yield (
                f"the operator {node.operator!r}{where} (node {node.name!r}), and such {why}: take "
                "another file of the network, as model.onnx; or insist, if you trust it and your "
                f"engine knows the operator, with {TRUST_FLAG} (in Python and YAML: trust=True)"
            )


def _is_plain(node: Node) -> bool:
    return node.domain in ("", "ai.onnx") and node.operator in COMPUTES


def _odd_weights(tensor: Tensor) -> str | None:
    if tensor.data_type not in _WIDTHS or tensor.is_odd:
        return f"are of a type that is not taken (number {tensor.data_type} of ONNX)"
    if len(tensor.dims) > _MOST_RANK or min(tensor.dims, default=0) < 0:
        return "have an impossible shape"
    size = _bytes(tensor)
    if size > MOST_TENSOR_BYTES:
        return f"would be {size:,} bytes, and more than {MOST_TENSOR_BYTES:,} are not taken"
    # Lists of numbers take at least a byte for each; raw bytes all of them.
    if not tensor.external and size // _WIDTHS[tensor.data_type] > tensor.stored:
        return f"have only {tensor.stored:,} bytes in the file"
    return None


def _bytes(tensor: Tensor) -> int:
    size = _WIDTHS[tensor.data_type]
    for side in tensor.dims:
        size *= side
    return size


def _require_data_inside(graph: Graph, path: str, folder: str) -> None:
    sizes = {name: _size_inside(folder, name, path) for name in data_files(graph, path)}
    for tensor in graph.tensors:
        if not tensor.external:
            continue
        name = tensor.external["location"]
        begin = _whole(tensor.external.get("offset", "0"))
        length = _whole(tensor.external.get("length", str(_bytes(tensor))))
        if begin + length > sizes[name] or length != _bytes(tensor):
            raise BackboneError(
                f"{path!r}: the weights {tensor.name!r} of {_bytes(tensor):,} bytes do not fit "
                f"what they name, {length:,} bytes from {begin:,} on of {name!r}, which has "
                f"{sizes[name]:,}: get both files again, from one place"
            )


def _whole(text: str) -> int:
    # Anything else than a plain number fits no file.
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 2**63


def _size_inside(folder: str, name: str, path: str) -> int:
    real = os.path.realpath(folder)
    inside = os.path.realpath(os.path.join(folder, name))
    if os.path.commonpath([real, inside]) != real:
        raise BackboneError(
            f"{path!r} keeps weights in {name!r}, a link that leads out of its folder, and is not "
            "read: a network may not name other files of this machine. If you know that file, copy "
            "the folder with `cp -rL`, which puts files in the place of links"
        )
    if not os.path.isfile(inside):
        raise BackboneError(
            f"{path!r} keeps weights in {name!r}, which is not beside it: get that file, too"
        )
    return os.path.getsize(inside)
