"""Resolves a name, path or handle to a backbone with hashed weights, without TensorFlow."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from beam_flowers import files
from beam_flowers.backbones import hub, huggingface, onnx_folder, quantised, weights
from beam_flowers.backbones.catalogue import VECTORS, Backbone, find_row, unknown
from beam_flowers.backbones.found_recipe import (
    HUB_RANGE,
    KnownRecipe,
    find_recipe,
    rows_of,
    untold,
)
from beam_flowers.backbones.hardware import Precision
from beam_flowers.backbones.keras_check import require_no_code, require_safe_keras
from beam_flowers.backbones.onnx_check import engine_counts, image_of, require_usable, sides_of
from beam_flowers.backbones.onnx_file import Graph, read_graph
from beam_flowers.backbones.onnx_output import choose_output
from beam_flowers.backbones.preprocessor_config import CONFIG_FILE, RecipeFields, read_config
from beam_flowers.backbones.saved_model_check import require_computing
from beam_flowers.backbones.weights import Kind
from beam_flowers.errors import BackboneError

EngineName = Literal["tensorflow", "openvino", "onnxruntime"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResolvedBackbone:
    """Identifies a backbone by the digest of its weights. Small and picklable.

    Attributes:
        row: the backbone, with the pixel range of these weights.
        kind: file format of the weights.
        path: absolute path or address of the weights; unused if they ship with the package.
        weights_sha256: hex digest, see `weights.sha256`.
        vectors: one of `VECTORS`, to which the numbers of its embeddings are rounded.
        precision: type of its products.
        quantised_path: folder of the quantised network; empty if that ships with the package.
        quantised_sha256: its `quantised.digest`; empty unless the precision is int8.
        engine: library that runs it. Not part of the fingerprint: in float32 engines differ only
            in the last bits.
        trusted: True if the user trusts a network with any operations. Not part of the
            fingerprint: the embeddings are the same.
        is_known: True if a store or a model has embeddings of it, so that its output is not
            questioned. Not part of the fingerprint.
        engine_counts: True if the network computes in fewer bits than float32 by itself, which
            engines do differently: the engine is part of the fingerprint then.
    """

    row: Backbone
    kind: Kind
    path: str
    weights_sha256: str
    vectors: str = VECTORS[0]
    precision: Precision = "float32"
    engine: EngineName = "tensorflow"
    trusted: bool = False
    quantised_path: str = ""
    quantised_sha256: str = ""
    is_known: bool = False
    engine_counts: bool = False

    def about(self) -> dict[str, Any]:
        """Returns all that decides embeddings as JSON values: equal dicts, equal embeddings."""
        # Absent without rounding, so that older stores keep their fingerprint.
        rounded = {} if self.vectors == VECTORS[0] else {"vectors": self.vectors}
        in_int8 = {"quantised_sha256": self.quantised_sha256} if self.quantised_sha256 else {}
        engine = {"arithmetic": self.engine} if self.engine_counts else {}
        return {
            "name": self.row.name,
            "weights_sha256": self.weights_sha256,
            "pixels": self.row.about_pixels(),
            "precision": self.precision,
            **rounded,
            **in_int8,
            **engine,
        }

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of `about()` as JSON with sorted keys and no spaces."""
        text = json.dumps(self.about(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def place(self) -> str:
        """Path of the weights; each worker uses those of its own package."""
        return weights.places(self.row)[0] if self.row.in_package else self.path

    @property
    def quantised_place(self) -> str:
        """Folder of the quantised network; each worker uses that of its own package."""
        return self.quantised_path or quantised.places(self.row, "")[0]

    @property
    def short(self) -> str:
        """First 8 digits of the fingerprint."""
        return self.fingerprint[:8]

    def in_form(self, fingerprint: str) -> ResolvedBackbone:
        """Returns the backbone in the precision and rounding of a fingerprint.

        Returns itself if none fits: the fingerprint is that of another backbone.
        """
        precisions = [self.in_precision("float32"), self.in_precision("bfloat16")]
        if quantised.find(self.row, replace(precisions[0], vectors=VECTORS[0]).fingerprint):
            precisions.append(self.in_precision("int8"))
        forms = (replace(form, vectors=v) for v, form in product(VECTORS, precisions))
        return next((form for form in forms if form.fingerprint == fingerprint), self)

    def in_precision(self, precision: Precision) -> ResolvedBackbone:
        """Returns the backbone in a precision; in int8 with its quantised network.

        Raises:
            BackboneError: nobody has quantised it.
        """
        plain = replace(self, precision=precision, quantised_path="", quantised_sha256="")
        if precision != "int8":
            return plain
        full = replace(plain, precision="float32", vectors=VECTORS[0])
        folder, digest = quantised.require(self.row, full.fingerprint)
        path = "" if self.row.in_package else folder
        return replace(plain, quantised_path=path, quantised_sha256=digest)


def resolve(
    name: str,
    path: str | None = None,
    sha256: str | None = None,
    pixel_range: tuple[float, float] | None = None,
    precision: str = "float32",
    engine: str = "auto",
    trust: bool = False,
    *,
    config: str | None = None,
    input_size: int | None = None,
    output: str = "",
    known: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> ResolvedBackbone:
    """Finds a backbone's weights and hashes them; downloads them if they are a TF-Hub handle.

    A backbone is a program. A SavedModel is read without TensorFlow and refused if it holds
    operations that do more than compute, and so is an ONNX file; a `.keras` file if it names
    classes that could run code.
    `.h5` files are accepted only as weights of a backbone known by name. This is not a sandbox.

    Args:
        name: a name of the catalogue; or a path of a SavedModel folder, a `.keras` file, an
            `.onnx` file or its folder, the `hf://` address of an installed one, or a TF-Hub
            handle, from which the name is made.
        path: weights for the name: a Keras weights file (catalogue names only), or what `name`
            may be. A name outside the catalogue may be chosen freely.
        sha256: expected digest of the weights (`ResolvedBackbone.weights_sha256`); for a handle,
            that or the digest of the archive, which is compared before it is unpacked.
        pixel_range: values of black and white in the input. Default: that of `config`; of a
            recipe that is known; of the network's own files, as `find_recipe` looks for it; of
            the catalogue, where a SavedModel of a catalogue name takes [0, 1].
        precision: `float32`, `bfloat16` (`bf16` for short) or `int8`.
        engine: `tensorflow`, `openvino`, `onnxruntime`, or `auto`: OpenVINO if this machine has
            it.
        trust: loads a SavedModel or an ONNX network with any operations.
        config: file with the recipe, in the form of `preprocessor_config.json`.
        input_size: side of the square image, of a network that leaves it open.
        output: name of the output that is the vector, of a layer of a `.keras` file, or of a node
            of a SavedModel. An output [N, h, w, C] is averaged over h and w. Of an ONNX network
            also `class` or `mean` of its tokens, see `onnx_output.choose_output`.
        known: recipes of stores or models, of which one for these weights is taken: the
            fingerprint of their vectors, and what `ResolvedBackbone.about` had as `pixels`.

    Raises:
        BackboneError: the backbone is unknown, missing, damaged, unsafe or has another digest; or
            nothing says which pixels it takes.
    """
    if huggingface.is_address(name):
        name = huggingface.installed(name)
    if path is not None and huggingface.is_address(path):
        path = huggingface.installed(path)
    row = find_row(name)
    is_named = row is not None
    if row is None:
        path = _source_of(name) if path is None else path
        row = Backbone(_slug(name), input_size=None, vector_length=None, source=path)
    try:
        # The download checks the digest of a handle, which may be that of its archive.
        where = _locate(row, path, sha256)
        pinned = None if path is not None and hub.is_handle(path) else sha256
        kind = weights.kind_of(where, row)
        if kind == "onnx":
            where = onnx_folder.graph_path(where)
            graph = _checked_graph(where, trust)
        digest = _checked_digest(where, kind, row, pinned)
        if kind == "saved-model":
            require_computing(where, trust)
    except OSError as error:
        raise BackboneError(f"weights of {row.name!r} cannot be read: {error}") from error
    backbone = ResolvedBackbone(
        row, kind, where, digest, engine=_engine(engine, kind), trusted=trust
    )
    handle = path if path is not None and hub.is_handle(path) else None
    wanted = _Wanted(pixel_range, config, input_size, output, handle)
    recipes = [KnownRecipe(*one) for one in known]
    if kind == "onnx":
        complete = _onnx(backbone, graph, wanted, recipes)
    else:
        complete = _with_recipe(backbone, wanted, recipes, is_named=is_named)
    return complete.in_precision(parse_precision(precision))


def _checked_graph(path: str, trust: bool) -> Graph:
    with weights.local_copy(path, "onnx") as local:
        graph = read_graph(local)
        require_usable(graph, path, os.path.dirname(local), trust)
    return graph


def _onnx(
    backbone: ResolvedBackbone, graph: Graph, wanted: _Wanted, known: Sequence[KnownRecipe]
) -> ResolvedBackbone:
    """Returns an ONNX network with its output and its recipe, which may be known."""
    path = backbone.path
    backbone = replace(backbone, engine_counts=engine_counts(graph))
    is_open = wanted.config is None and wanted.pixel_range is None
    if is_open and (of_old := _proved(backbone, wanted, known)):
        return of_old
    wanted = wanted._replace(output=choose_output(graph, path, wanted.output))
    resolved = _with_recipe(backbone, wanted, known, is_named=False)
    side, fixed = resolved.row.input_size, sides_of(image_of(graph, path))
    if side is None and fixed is None:
        raise BackboneError(
            f"{path!r} leaves the size of its images open, and so does its recipe: give the one "
            "that it was trained with as --input-size (in Python input_size)"
        )
    if side is not None and fixed not in (None, (side, side)):
        raise BackboneError(
            f"{path!r} takes images of {' x '.join(map(str, fixed or ()))} pixels, and its recipe "
            f"makes {side} x {side}: another {CONFIG_FILE} belongs to it"
        )
    return resolved


class _Wanted(NamedTuple):
    """Holds what the user says of input and output, and the handle that may say more."""

    pixel_range: tuple[float, float] | None
    config: str | None
    input_size: int | None
    output: str
    handle: str | None


def _with_recipe(
    backbone: ResolvedBackbone, wanted: _Wanted, known: Sequence[KnownRecipe], *, is_named: bool
) -> ResolvedBackbone:
    """Returns a backbone with the recipe that was given, is known, or is found."""
    row, kind, place = backbone.row, backbone.kind, backbone.path
    has_files = kind in ("saved-model", "keras-file", "onnx")
    fields: RecipeFields = {}
    if wanted.config is not None:
        fields = read_config(wanted.config)
    elif wanted.pixel_range is None and (of_old := _proved(backbone, wanted, known)):
        return of_old
    elif has_files and (found := find_recipe(place, kind, wanted.handle is not None)):
        fields = found.fields
        _LOG.info("backbone %s: pixels %s, %s", row.name, fields["pixel_range"], found.by)
    elif wanted.pixel_range is None and has_files and not is_named:
        raise untold(wanted.handle or place)
    elif kind == "saved-model" and is_named:
        fields = {"pixel_range": HUB_RANGE}
    if wanted.pixel_range is not None:
        low, high = wanted.pixel_range
        fields |= {"pixel_range": (float(low), float(high)), "mean": (), "std": ()}
    # A file that leaves the size out leaves it to the catalogue or the model.
    size = wanted.input_size or fields.get("input_size") or row.input_size
    if size is None and wanted.handle is not None:
        size = hub.documented_size(wanted.handle)
    changes: dict[str, Any] = {**fields, "input_size": size, "output": wanted.output}
    return replace(backbone, row=replace(row, **changes))


def _proved(
    backbone: ResolvedBackbone, wanted: _Wanted, known: Sequence[KnownRecipe]
) -> ResolvedBackbone | None:
    """Returns the backbone with the known recipe whose fingerprint it has then, in any form."""
    for row, fingerprint in rows_of(backbone.row, known):
        candidate = replace(backbone, row=row, is_known=True)
        is_asked = wanted.input_size in (None, row.input_size) and wanted.output in ("", row.output)
        if is_asked and candidate.in_form(fingerprint).fingerprint == fingerprint:
            return candidate
    return None


def parse_precision(name: str) -> Precision:
    """Returns the precision of that name; `bf16` is short for bfloat16.

    Raises:
        BackboneError: the name is unknown.
    """
    for precision in get_args(Precision):
        if name in (precision, {"bfloat16": "bf16"}.get(precision)):
            return precision
    raise BackboneError(f"precision {name!r} is not known: float32, bf16 or int8")


def _engine(name: str, kind: Kind) -> EngineName:
    if name == "auto":
        other: EngineName = "onnxruntime" if kind == "onnx" else "tensorflow"
        return "openvino" if importlib.util.find_spec("openvino") else other
    unfit = "tensorflow" if kind == "onnx" else "onnxruntime"
    if name == unfit:
        what = "an ONNX file" if kind == "onnx" else "no ONNX file"
        raise BackboneError(f"--engine {name} does not run {what}: leave the engine out")
    for engine in get_args(EngineName):
        if name == engine:
            return engine
    raise BackboneError(f"engine {name!r} is not known: auto, {' or '.join(get_args(EngineName))}")


def whereabouts(row: Backbone) -> str:
    """Returns one line: `yes` and the path of the weights, or `no` and the searched paths."""
    if row.in_package:
        return "yes, in the package"
    found = weights.find(row)
    if found:
        return f"yes, {found}"
    return f"no; looked for {', '.join(weights.places(row))}"


def _source_of(name: str) -> str:
    if hub.is_handle(name) or files.exists(name):
        return name
    raise unknown(name)


def _slug(name: str) -> str:
    if name.endswith(onnx_folder.SUFFIX) and not files.is_folder(name):
        name = onnx_folder.name_of(files.absolute(name))
    path = urlsplit(name).path if hub.is_handle(name) else re.split(r"[/\\]", name.rstrip("/"))[-1]
    path = re.sub(r"\.(keras|tar\.gz|tgz)$", "", path)
    return re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-") or "backbone"


def _locate(row: Backbone, path: str | None, sha256: str | None) -> str:
    if path is not None and row.in_package:
        raise BackboneError(
            f"the weights of {row.name!r} ship with the package, {path!r} would not be used: "
            "leave the path out, or give the network another name"
        )
    if path is not None:
        return hub.fetch(path, sha256).path if hub.is_handle(path) else files.absolute(path)
    found = weights.find(row)
    if found is None:
        raise _absent(row)
    return found


def _absent(row: Backbone) -> BackboneError:
    looked = weights.places(row)
    if row.in_package:
        return BackboneError(f"{looked[0]!r} is missing: install the package again")
    if row.loader == "efficientnet-lite":
        return BackboneError(
            f"the weights of {row.name!r} are not on this machine, and nothing makes them any "
            f"more: put {row.weights_file} and {weights.BLOCKS}, converted before, beside each "
            f"other at {looked[-1]}, or give the file as --backbone-path; or take the backbone "
            f"efficientnet-lite0, which ships with the package. Looked for: {', '.join(looked)}"
        )
    return BackboneError(
        f"the weights of {row.name!r} are not on this machine: get {row.source} and put it at "
        f"{looked[-1]} or into the folder that {weights.PLACES_VARIABLE} names, or give its path "
        "as --backbone-path (a SavedModel folder or a TF-Hub handle will do, too). Looked for: "
        f"{', '.join(looked)}. The backbone efficientnet-lite0 needs nothing of this: its "
        "weights ship with the package"
    )


def _checked_digest(path: str, kind: Kind, row: Backbone, sha256: str | None) -> str:
    if kind == "efficientnet-lite" or (kind == "keras-weights" and sha256 is None):
        weights.require_pinned(path, row)
    elif kind == "keras-weights":
        # HDF5 other than the pinned file may link to files of this machine.
        require_safe_keras(path)
    if kind == "keras-file":
        require_safe_keras(path)
        require_no_code(path)
    digest = weights.sha256(path, kind)
    if sha256 is not None and digest != sha256.strip().lower():
        raise BackboneError(
            f"the weights of {row.name!r} at {path!r} have the sha256 {digest}, not {sha256!r}: "
            "they are damaged or others than were asked for"
        )
    _LOG.info("backbone %s: weights %s, sha256 %s", row.name, path, digest)
    return digest
