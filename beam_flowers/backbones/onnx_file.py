"""Reads what an ONNX file says of its network, without its weights and without a runtime.

The numbers of messages and fields are those of `onnx.proto3` of ONNX 1.19. Weights are stepped over
and not copied, so that reading a file of any size takes little memory.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from beam_flowers.errors import BackboneError

MOST_BYTES = 2**31 - 1
"""Bytes of the largest file of a graph: protobuf's own limit. Larger networks keep their weights in
other files."""

_MOST_FIELDS = 1_000_000
"""Some twenty times those of the largest published image networks; as many take 0.4 GB and 2 s."""
_MOST_TEXT = 2**16
_MOST_DATA_FILES = 256
_MOST_DEPTH = 8

# By message and number: name, type, and True if the field may come several times. The type is a
# message, `int`, `ints` (packed or not), `text`, or `size`: only the number of bytes is kept.
_FIELDS: dict[str, dict[int, tuple[str, str, bool]]] = {
    "Model": {
        7: ("graph", "Graph", False),
        8: ("opset", "Opset", True),
        20: ("training", "size", True),
        25: ("function", "Function", True),
    },
    "Opset": {1: ("domain", "text", False), 2: ("version", "int", False)},
    "Function": {1: ("name", "text", False)},
    "Graph": {
        1: ("node", "Node", True),
        5: ("tensor", "Tensor", True),
        11: ("input", "Value", True),
        12: ("output", "Value", True),
        15: ("sparse", "size", True),
    },
    "Node": {
        1: ("input", "text", True),
        2: ("output", "text", True),
        3: ("name", "text", False),
        4: ("operator", "text", False),
        5: ("attribute", "Attribute", True),
        7: ("domain", "text", False),
    },
    "Attribute": {
        5: ("tensor", "Tensor", False),
        6: ("graph", "Graph", False),
        10: ("tensors", "Tensor", True),
        11: ("graphs", "Graph", True),
        22: ("sparse", "size", False),
        23: ("sparse", "size", True),
    },
    "Tensor": {
        1: ("dims", "ints", True),
        2: ("data_type", "int", False),
        3: ("segment", "size", False),
        **dict.fromkeys((4, 5, 6, 7, 9, 10, 11), ("stored", "size", True)),
        8: ("name", "text", False),
        13: ("external", "Entry", True),
        14: ("location", "int", False),
    },
    "Entry": {1: ("key", "text", False), 2: ("value", "text", False)},
    "Value": {1: ("name", "text", False), 2: ("type", "Type", False)},
    "Type": {1: ("tensor", "TensorType", False)},
    "TensorType": {1: ("data_type", "int", False), 2: ("shape", "Shape", False)},
    "Shape": {1: ("dim", "Dim", True)},
    "Dim": {1: ("value", "int", False)},
}

_Message = dict[str, list[Any]]


class Tensor(NamedTuple):
    """Describes the weights of a name.

    Attributes:
        name: in the graph; empty for a constant.
        dims: its shape.
        data_type: number of its type in ONNX.
        stored: bytes of it in the file.
        external: `location`, `offset` and `length` of those in another file; else empty.
        is_odd: True if it comes in segments.
    """

    name: str
    dims: tuple[int, ...]
    data_type: int
    stored: int
    external: dict[str, str]
    is_odd: bool


class Node(NamedTuple):
    """Describes an operation: its operator, the domain of that, and the names of its tensors."""

    operator: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Value(NamedTuple):
    """Describes an input or output.

    Attributes:
        name: in the graph.
        data_type: number of its type in ONNX; 0 if it is not said.
        dims: its shape, where None is an open side; None if it is not said.
    """

    name: str
    data_type: int
    dims: tuple[int | None, ...] | None


class Graph(NamedTuple):
    """Describes an ONNX network.

    Attributes:
        inputs: without those that have weights.
        outputs: in the file's order.
        nodes: operations of the graph itself.
        inner: operations of graphs inside of others, as the branches of an `If`.
        tensors: all weights and constants, of inner graphs too.
        odd: names of things in it that no network needs: local functions, sparse tensors, training.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    inner: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    odd: tuple[str, ...]


def read_graph(path: str) -> Graph:
    """Reads the description of a network from a local ONNX file.

    Raises:
        BackboneError: the file is damaged, no ONNX file, or too large.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if size > MOST_BYTES:
            raise BackboneError(
                f"{path!r} is larger than 2 GiB, which no ONNX file can be: save its weights as "
                "external data"
            )
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _graph(_Reader(data).message("Model", 0, size, 0))
        except ValueError as error:  # Also of an empty file.
            raise BackboneError(
                f"{path!r} is damaged, or no ONNX file: {error}; get it again"
            ) from error


def data_files(graph: Graph, path: str) -> list[str]:
    """Returns the names of the files with weights, relative to the graph's folder, as bytes sort.

    Raises:
        BackboneError: one lies outside of the folder of the graph at `path`, or there are too many.
    """
    names = sorted({t.external["location"] for t in graph.tensors if t.external}, key=os.fsencode)
    if len(names) > _MOST_DATA_FILES:
        raise BackboneError(f"{path!r} keeps weights in {len(names)} files: export it again")
    for name in names:
        odd = not name or re.search(r"[\x00-\x1f\\:]", name) or name.startswith("/")
        if odd or ".." in name.split("/"):
            raise BackboneError(
                f"{path!r} keeps weights in {name!r}, which lies outside of its folder, and is not "
                "read: a network may not name other files of this machine. Export it again, with "
                "its data beside it"
            )
    return names


class _Reader:
    """Reads messages of protobuf from bytes; raises ValueError for what no writer makes."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._left = _MOST_FIELDS

    def message(self, kind: str, begin: int, end: int, depth: int) -> _Message:
        """Reads the known fields of a message between two places, by name."""
        known, found = _FIELDS[kind], _Message()
        place = begin
        while place < end:
            self._count()
            key, place = self._number(place, end)
            start, number, place = self._value(key & 7, place, end)
            name, type_, repeats = known.get(key >> 3, ("", "", True))
            if not name:
                continue
            values = found.setdefault(name, [])
            # Parsers take the last, or merge them: which one a runtime does cannot be known here.
            if values and not repeats:
                raise ValueError(f"{name} comes twice in one {kind}")
            values.extend(self._read(type_, number, start, place, depth))
        return found

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has more than {_MOST_FIELDS:,} fields")

    def _read(
        self, type_: str, number: int | None, start: int, end: int, depth: int
    ) -> Iterator[Any]:
        if type_ == "size":
            yield end - start
        elif type_ == "int" and number is not None:
            yield number
        elif type_ == "ints":
            yield from (number,) if number is not None else self._packed(start, end)
        elif type_ == "int" or number is not None:
            raise ValueError(f"a field has another type than {type_}")
        elif type_ == "text":
            if end - start > _MOST_TEXT:
                raise ValueError(f"it has a name of {end - start:,} bytes")
            yield self._data[start:end].decode("utf-8", "backslashreplace")
        else:
            if depth > _MOST_DEPTH:
                raise ValueError(f"graphs lie more than {_MOST_DEPTH} deep in each other")
            yield self.message(type_, start, end, depth + (type_ == "Graph"))

    def _packed(self, place: int, end: int) -> Iterator[int]:
        while place < end:
            self._count()
            value, place = self._number(place, end)
            yield value

    def _value(self, wire: int, place: int, end: int) -> tuple[int, int | None, int]:
        """Returns the begin of a value, its number if it is one, and its end."""
        if wire == 0:
            number, after = self._number(place, end)
            return place, number, after
        if wire == 2:
            length, place = self._number(place, end)
        else:
            length = {1: 8, 5: 4}.get(wire, -1)
        if not 0 <= length <= end - place:
            raise ValueError(f"it ends early, or holds no fields of protobuf at byte {place:,}")
        return place, None, place + length

    def _number(self, place: int, end: int) -> tuple[int, int]:
        """Returns an int64 and the place after it."""
        number = shift = 0
        while place < end and shift < 70:
            byte = self._data[place]
            number |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if byte < 128:
                number &= 2**64 - 1
                return number - (number >> 63 << 64), place
        raise ValueError(f"it ends early, or holds no number at byte {place:,}")


def _graph(model: _Message) -> Graph:
    if not model.get("graph"):
        raise ValueError("it has no graph")
    (graph,) = model["graph"]
    functions = (_one(function, "name") for function in model.get("function", ()))
    inner: list[Node] = []
    tensors: list[Tensor] = []
    odd = [f"the function {name!r}" for name in functions]
    if model.get("training"):
        odd.append("training")
    left = [graph]
    while left:
        one = left.pop()
        tensors += map(_tensor, one.get("tensor", ()))
        odd += ["sparse tensors"] * bool(one.get("sparse"))
        inner += [_node(node) for node in one.get("node", ()) if one is not graph]
        for node in one.get("node", ()):
            for attribute in node.get("attribute", ()):
                left += attribute.get("graph", []) + attribute.get("graphs", [])
                held = attribute.get("tensor", []) + attribute.get("tensors", [])
                tensors += map(_tensor, held)
                odd += ["sparse tensors"] * bool(attribute.get("sparse"))
    with_weights = {_one(tensor, "name") for tensor in graph.get("tensor", ())}
    inputs = (_described(value) for value in graph.get("input", ()))
    return Graph(
        tuple(value for value in inputs if value.name not in with_weights),
        tuple(_described(value) for value in graph.get("output", ())),
        tuple(_node(node) for node in graph.get("node", ())),
        tuple(inner),
        tuple(tensors),
        tuple(odd),
    )


def _one(message: _Message, name: str, default: Any = "") -> Any:
    return message.get(name, [default])[0]


def _node(node: _Message) -> Node:
    return Node(
        _one(node, "operator"),
        _one(node, "domain"),
        _one(node, "name"),
        tuple(node.get("input", ())),
        tuple(node.get("output", ())),
    )


def _tensor(tensor: _Message) -> Tensor:
    entries = [(_one(e, "key"), _one(e, "value")) for e in tensor.get("external", ())]
    if len(dict(entries)) < len(entries):
        raise ValueError(f"the weights {_one(tensor, 'name')!r} name their place twice")
    # 1 is EXTERNAL; runtimes look at this field, or at the entries.
    external = dict(entries)
    if _one(tensor, "location", 0) == 1 and "location" not in external:
        raise ValueError(f"the weights {_one(tensor, 'name')!r} do not say which file has them")
    return Tensor(
        _one(tensor, "name"),
        tuple(tensor.get("dims", ())),
        _one(tensor, "data_type", 0),
        sum(tensor.get("stored", ())),
        external,
        bool(tensor.get("segment")),
    )


def _described(value: _Message) -> Value:
    tensor = _one(_one(value, "type", {}), "tensor", {})
    shape = _one(tensor, "shape", None)
    dims = None
    if shape is not None:
        sizes = (_one(dim, "value", 0) for dim in shape.get("dim", ()))
        dims = tuple(size if size > 0 else None for size in sizes)
    return Value(_one(value, "name"), _one(tensor, "data_type", 0), dims)
