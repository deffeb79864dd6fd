"""Finds the graph and the recipe in a folder as Hugging Face publishes networks."""

from __future__ import annotations

from beam_flowers import files
from beam_flowers.errors import BackboneError

SUFFIX = ".onnx"
# Of a network with two towers, as CLIP and SigLIP, `model.onnx` is both.
GRAPHS = (
    "onnx/vision_model.onnx",
    "onnx/model.onnx",
    "vision_model.onnx",
    "model.onnx",
)
"""Files of the graph below a network's folder, by preference."""

_GRAPHS_FOLDER = "onnx"


def graph_path(path: str) -> str:
    """Returns the path of a graph by that, or by its network's folder."""
    found = find_graph(path) if files.is_folder(path) else path
    return found or path


def find_graph(folder: str) -> str | None:
    """Returns the path of the graph in a network's folder; None if it has no ONNX file.

    Raises:
        BackboneError: it has variants only, of which the user names one.
    """
    paths = [files.join(folder, name) for name in GRAPHS]
    if found := next(filter(files.exists, paths), None):
        return found
    variants = [
        entry.uri
        for place in (folder, files.join(folder, _GRAPHS_FOLDER))
        if files.is_folder(place)
        for entry in files.list_folder(place)
        if entry.name.endswith(SUFFIX)
    ]
    if not variants:
        return None
    raise BackboneError(
        f"the folder {folder!r} has no {' or '.join(GRAPHS)}: give one of its files itself, "
        f"{', '.join(sorted(variants)[:8])}"
    )


def folder_of(graph: str) -> str:
    """Returns the folder of the network that a graph belongs to."""
    folder = files.parent(graph)
    return files.parent(folder) if _last(folder) == _GRAPHS_FOLDER else folder


def name_of(graph: str) -> str:
    """Returns the name of a network by the path of its graph.

    That is its folder's, with a variant's own part: `dinov2-small/onnx/model_fp16.onnx` is
    `dinov2-small-fp16`.
    """
    folder, stem = _last(folder_of(graph)), _last(graph).removesuffix(SUFFIX)
    variant = stem
    for common in ("vision_model", "model"):
        if stem.startswith(common):
            variant = stem.removeprefix(common).strip("_-.")
            break
    return "-".join(filter(None, (folder, variant)))


def _last(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
