"""Describes the fields of `saved_model.pb` that are read before TensorFlow loads it.

TensorFlow's own message classes come only with all of TensorFlow. They are described again here, in
a separate pool, so that the two do not conflict. Every field of a `oneof` and every entry of a map
is kept, even if TensorFlow would keep only the last.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

NUMBER = "int64"
"""Type of a whole number among `FIELDS`."""

# Fields by message, each with its number and, for messages, the type. A map is a list of entries.
FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "SavedModel": {"meta_graphs": (2, "MetaGraphDef")},
    "MetaGraphDef": {
        "graph_def": (2, "GraphDef"),
        "saver_def": (3, "SaverDef"),
        "collection_def": (4, "CollectionDefEntry"),
        "signature_def": (5, "SignatureDefEntry"),
        "object_graph_def": (7, "SavedObjectGraph"),
    },
    "GraphDef": {"node": (1, "NodeDef"), "library": (2, "FunctionDefLibrary")},
    "NodeDef": {"name": (1, ""), "op": (2, ""), "input": (3, ""), "attr": (5, "AttrEntry")},
    "AttrEntry": {"value": (2, "AttrValue")},
    "AttrValue": {"list": (1, "ListValue"), "func": (10, "NameAttrList")},
    "ListValue": {"func": (9, "NameAttrList")},
    "NameAttrList": {"name": (1, ""), "attr": (2, "AttrEntry")},
    "FunctionDefLibrary": {
        "function": (1, "FunctionDef"),
        "gradient": (2, "GradientDef"),
        "registered_gradients": (3, "RegisteredGradient"),
    },
    "FunctionDef": {
        "signature": (1, "OpDef"),
        "node_def": (3, "NodeDef"),
        "attr": (5, "NamedEntry"),
    },
    "NamedEntry": {"key": (1, "")},
    "OpDef": {"name": (1, "")},
    "GradientDef": {"gradient_func": (2, "")},
    "RegisteredGradient": {"gradient_func": (1, "")},
    "SaverDef": {"restore_op_name": (3, "")},
    "CollectionDefEntry": {"key": (1, ""), "value": (2, "CollectionDef")},
    "CollectionDef": {"node_list": (1, "NodeList")},
    "NodeList": {"value": (1, "")},
    "SignatureDefEntry": {"key": (1, ""), "value": (2, "SignatureDef")},
    "SignatureDef": {"inputs": (1, "TensorInfoEntry"), "outputs": (2, "TensorInfoEntry")},
    "TensorInfoEntry": {"value": (2, "TensorInfo")},
    "TensorInfo": {
        "name": (1, ""),
        "dtype": (2, NUMBER),
        "coo_sparse": (4, "CooSparse"),
        "composite_tensor": (5, "CompositeTensor"),
    },
    "CooSparse": {
        "values_tensor_name": (1, ""),
        "indices_tensor_name": (2, ""),
        "dense_shape_tensor_name": (3, ""),
    },
    "CompositeTensor": {"components": (2, "TensorInfo")},
    "SavedObjectGraph": {
        "nodes": (1, "SavedObject"),
        "concrete_functions": (2, "NamedEntry"),
    },
    "SavedObject": {
        "function": (6, "SavedFunction"),
        "bare_concrete_function": (8, "SavedBareConcreteFunction"),
    },
    "SavedFunction": {"concrete_functions": (1, "")},
    "SavedBareConcreteFunction": {"concrete_function_name": (1, "")},
}


@lru_cache(maxsize=1)
def saved_model_class() -> Any:
    """Returns the class of a `SavedModel` message with the fields of `FIELDS`, each a list."""
    package = "beam_flowers.saved_model"
    file = descriptor_pb2.FileDescriptorProto(name="saved_model.proto", package=package)
    file.syntax = "proto2"
    descriptor = descriptor_pb2.FieldDescriptorProto
    plain = {"": descriptor.TYPE_BYTES, NUMBER: descriptor.TYPE_INT64}
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, type_name) in fields.items():
            message.field.add(
                name=field,
                number=number,
                # Also for singular fields: parsers merge a message that comes in pieces.
                label=descriptor.LABEL_REPEATED,
                # Bytes, as proto2 does not require text to be UTF-8.
                type=plain.get(type_name, descriptor.TYPE_MESSAGE),
                type_name=None if type_name in plain else f".{package}.{type_name}",
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.SavedModel"))
