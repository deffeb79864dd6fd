"""Checks that a SavedModel holds only operations that compute, before TensorFlow loads it.

This is not a sandbox: an allowed operation may have a bug, and any backbone may take too much
memory or time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from beam_flowers import files
from beam_flowers.backbones.operations import COMPUTES, RESTORES, SAVES
from beam_flowers.backbones.saved_model_messages import saved_model_class
from beam_flowers.errors import BackboneError

TRUST_FLAG = "--trust-backbone"
MODEL_FILE = "saved_model.pb"
LIMIT = 2**29
"""Bytes of the largest `saved_model.pb` that is read: weights are usually in other files."""
_MOST_NODES = 2_000_000
_INITIALISERS = {b"saved_model_main_op", b"legacy_init_op", b"table_initializer"}
_PIECE = 2**20


class Place(NamedTuple):
    """Locates an operation.

    Attributes:
        operation: name of the operation.
        node: name of its node.
        function: name of the function with the node; empty for the graph itself.
    """

    operation: str
    node: str
    function: str


def require_computing(folder: str, trusted: bool = False) -> None:
    """Checks that a SavedModel holds only operations of `operations.COMPUTES`.

    Every node and function is checked, even unused ones: while TensorFlow loads, it computes the
    shapes of all of them, and runs operations such as `ReadFile` for that (seen with 2.21). The
    savers' operations are exceptions if no signature, function of the saved objects, gradient or
    initialiser reaches them: those that read a checkpoint, and, if reading does not reach them
    either, those that write one.

    Args:
        folder: address of the SavedModel, local or remote.
        trusted: skips the check, as the user trusts this backbone.

    Raises:
        BackboneError: names an operation that is not on the list, or the file cannot be read.
    """
    if trusted:
        return
    path = files.join(folder, MODEL_FILE)
    # Some releases of TensorFlow read this file, the model in pieces, instead.
    if files.exists(other := files.join(folder, "saved_model.cpb")):
        raise BackboneError(f"{other!r} is not read: export the network as one {MODEL_FILE}")
    place = next(_refused(_parse(path)), None)
    if place is not None:
        where = f"the function {place.function!r}" if place.function else "its graph"
        raise BackboneError(
            f"the SavedModel {folder!r} holds the operation {place.operation!r} (node "
            f"{place.node!r} of {where}), which is not among those that only compute: it may "
            "read or write files, run programs or use the network. Nothing was loaded. If you "
            f"know where the network comes from and trust it, insist with {TRUST_FLAG} (in Python "
            "and YAML: trust=True); else export it again from the layers that make the vector"
        )


def signatures(folder: str) -> dict[str, set[int]]:
    """Returns the signatures of a SavedModel by name, with the types of their inputs.

    Types are TensorFlow's numbers: 1 is float32, 4 is uint8.

    Raises:
        BackboneError: the file is damaged or too large.
    """
    return {
        _text(_last(entry.key)): {
            number
            for signature in entry.value
            for tensor in signature.inputs
            for info in tensor.value
            for number in info.dtype
        }
        for meta in _parse(files.join(folder, MODEL_FILE)).meta_graphs
        for entry in meta.signature_def
    }


def _parse(path: str) -> Any:
    content = bytearray()
    with files.open_read(path) as file:
        while piece := file.read(_PIECE):
            content += piece
            if len(content) > LIMIT:
                raise BackboneError(
                    f"{path!r} is larger than {LIMIT >> 20} MiB, too large to be checked: save the "
                    f"weights as variables, or insist with {TRUST_FLAG} if you trust the network"
                )
    try:
        return saved_model_class().FromString(bytes(content))
    except DecodeError as error:  # Raised too for messages nested 100 deep.
        raise BackboneError(
            f"{path!r} is damaged, or no SavedModel: {error}; get it again"
        ) from error


def _refused(model: Any) -> Iterator[Place]:
    for meta in model.meta_graphs:
        graph = _Graph(meta)
        run = graph.reached(graph.run_by_users())
        restoring = graph.reached(name for one in meta.saver_def for name in one.restore_op_name)
        for holder in graph.all_holders():
            left_alone = RESTORES if holder in restoring else SAVES
            yield from graph.outside(holder, COMPUTES if holder in run else left_alone)


class _Holder(NamedTuple):
    """Names a holder of operations: a node of the graph, or a function with its nodes."""

    name: bytes
    is_function: bool


class _Graph:
    """Finds the nodes and functions of one graph of a SavedModel by name."""

    def __init__(self, meta: Any) -> None:
        self._meta = meta
        # A hostile file may use a name twice: all nodes and functions of that name are checked.
        self._nodes: dict[bytes, list[Any]] = {}
        self._functions: dict[bytes, list[Any]] = {}
        libraries = [library for graph in meta.graph_def for library in graph.library]
        functions = [function for library in libraries for function in library.function]
        count = sum(len(graph.node) for graph in meta.graph_def)
        count += sum(len(function.node_def) for function in functions) + len(functions)
        if count > _MOST_NODES:
            raise BackboneError(
                f"a SavedModel of {count:,} nodes is not checked, as it has more than "
                f"{_MOST_NODES:,}: insist with {TRUST_FLAG} if you trust it"
            )
        for graph in meta.graph_def:
            for node in graph.node:
                self._nodes.setdefault(_last(node.name), []).append(node)
        for function in functions:
            names = [name for one in function.signature for name in one.name]
            self._functions.setdefault(_last(names), []).append(function)

    def all_holders(self) -> Iterator[_Holder]:
        """Yields all nodes and functions."""
        yield from (_Holder(name, False) for name in self._nodes)
        yield from (_Holder(name, True) for name in self._functions)

    def run_by_users(self) -> Iterator[bytes]:
        """Yields the nodes and functions from which loading and running start."""
        for entry in self._meta.signature_def:
            for signature in entry.value:
                for tensor in (*signature.inputs, *signature.outputs):
                    yield from _tensor_names(tensor.value)
        for entry in self._meta.collection_def:
            if _INITIALISERS & set(entry.key):
                for collection in entry.value:
                    yield from (name for one in collection.node_list for name in one.value)
        for objects in self._meta.object_graph_def:
            # These include functions that users call, and those that create and restore resources.
            yield from (name for one in objects.concrete_functions for name in one.key)
            for node in objects.nodes:
                yield from (name for one in node.function for name in one.concrete_functions)
                for bare in node.bare_concrete_function:
                    yield from bare.concrete_function_name
        for library in (library for graph in self._meta.graph_def for library in graph.library):
            for gradient in (*library.gradient, *library.registered_gradients):
                yield from gradient.gradient_func
        # TensorFlow may replace a function by another that implements the same interface.
        for name, functions in self._functions.items():
            if b"api_implements" in {key for f in functions for one in f.attr for key in one.key}:
                yield name

    def reached(self, names: Iterable[bytes]) -> set[_Holder]:
        """Returns the nodes and functions of these names, and all that they depend on or call."""
        left = [_Holder(name, is_function) for name in names for is_function in (False, True)]
        seen = set[_Holder]()
        while left:
            holder = left.pop()
            name = holder.name if holder.is_function else _node_name(holder.name)
            holder = _Holder(name, holder.is_function)
            if holder not in seen:
                seen.add(holder)
                for node in self._nodes_of(holder):
                    left += [_Holder(called, True) for called in self._called(node)]
                    if not holder.is_function:
                        left += [_Holder(source, False) for source in node.input]
        return seen

    def outside(self, holder: _Holder, allowed: frozenset[str]) -> Iterator[Place]:
        """Yields the operations of a node or a function that are not allowed."""
        function = _text(holder.name) if holder.is_function else ""
        for node in self._nodes_of(holder):
            for operation in node.op or [b""]:
                if _text(operation) not in allowed and not self._is_call(operation):
                    yield Place(_text(operation), _text(_last(node.name)), function)

    def _nodes_of(self, holder: _Holder) -> Iterator[Any]:
        if not holder.is_function:
            yield from self._nodes.get(holder.name, ())
        for function in self._functions.get(holder.name, ()) if holder.is_function else ():
            yield from function.node_def

    def _is_call(self, operation: bytes) -> bool:
        # A node may call a function by its name. Names of operations begin with a capital or one
        # underscore: a function of such a name must not hide an operation.
        plain = operation[:1].islower() or operation.startswith(b"__")
        return plain and operation in self._functions

    def _called(self, node: Any) -> Iterator[bytes]:
        yield from (operation for operation in node.op if operation in self._functions)
        left = list(node.attr)
        while left:
            for value in left.pop().value:
                for function in (*value.func, *(f for one in value.list for f in one.func)):
                    yield from function.name
                    left.extend(function.attr)


def _node_name(tensor: bytes) -> bytes:
    return tensor.removeprefix(b"^").partition(b":")[0]


def _tensor_names(infos: Iterable[Any]) -> Iterator[bytes]:
    left = list(infos)
    while left:
        info = left.pop()
        yield from info.name
        for sparse in info.coo_sparse:
            yield from sparse.values_tensor_name
            yield from sparse.indices_tensor_name
            yield from sparse.dense_shape_tensor_name
        for composite in info.composite_tensor:
            left.extend(composite.components)


def _last(values: Iterable[bytes]) -> bytes:
    """Returns the last value of a field, which is the one that TensorFlow uses."""
    return [b"", *values][-1]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
