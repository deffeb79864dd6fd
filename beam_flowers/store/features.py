"""Reads the labelled embeddings of one backbone from a store, for training and scoring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers import files
from beam_flowers.errors import StoreError
from beam_flowers.records import OnProgress
from beam_flowers.store.commits import (
    Manifest,
    Section,
    finish_publishing,
    open_table,
    read_steadily,
)
from beam_flowers.store.names import SCORED, is_section
from beam_flowers.store.parts import Place, damage, iterate_part, open_part, read_part
from beam_flowers.store.schema import vectors_of
from beam_flowers.store.vectors import Vectors, allocate, arranged

_ROWS = 4096
"""Number of rows whose vectors are decoded at once."""


@dataclass(frozen=True)
class Features:
    """Embeddings and labels of a store in the order of their uris.

    Attributes:
        uris: [N].
        sha256: [N], hex digests of the files' contents.
        labels: [N], None for a file without a label.
        splits: [N], `training`, `validation`, `testing` or None.
        vectors: float32 [N, D]; in a temporary file above `vectors.IN_MEMORY`.
    """

    uris: list[str]
    sha256: list[str]
    labels: list[str | None]
    splits: list[str | None]
    vectors: Vectors


def section_name(backbone: str, fingerprint: str) -> str:
    """Returns the folder of a backbone's rows: `backbone=<name>-<first 8 of the fingerprint>`.

    Raises:
        StoreError: the name cannot be part of a folder's name.
    """
    key = f"backbone={backbone}-{fingerprint[:8]}"
    if not is_section(key):
        raise StoreError(
            f"a backbone named {backbone!r} cannot have a folder in a store; name it with letters, "
            "digits, '-', '_' and '.'"
        )
    return key


def scored_root(store: str) -> str:
    """Returns the folder of the table of images that were only scored with a store."""
    return files.join(store, SCORED)


def open_store(root: str) -> Manifest:
    """Returns the newest version of a feature store, and finishes its publishing.

    Raises:
        StoreError: there is no table at `root`, or it is a table of scores.
    """
    manifest = open_table(root)
    if "" in manifest.sections:
        raise StoreError(f"{root} is a table of scores; name the feature store they were made from")
    finish_publishing(root, manifest.version)
    return manifest


def require_images(root: str, manifest: Manifest) -> None:
    """Refuses a store that has no collection, even if images were scored with it.

    Raises:
        StoreError: the store has no section.
    """
    if not manifest.sections:
        raise StoreError(
            f"{root} has no images yet (those that were only scored with it do not count); "
            f"`beam-flowers embed IMAGES --store {root}` adds some"
        )


def choose_section(root: str, manifest: Manifest, backbone: str | None) -> tuple[str, Section]:
    """Returns folder and section of the named backbone, or those of the only one.

    Raises:
        StoreError: the backbone is absent; several fit, which are listed; or the manifest does not
            name the section's backbone.
    """
    require_images(root, manifest)
    names = {key: str(s.about.get("name", "")) for key, s in manifest.sections.items()}
    fitting = [
        key for key, name in names.items() if backbone in (None, name, key.partition("=")[2])
    ]
    held = ", ".join(key.partition("=")[2] for key in names) or "none"
    if not fitting:
        raise StoreError(f"{root} has no vectors of {backbone!r}; it holds: {held}")
    if len(fitting) > 1:
        raise StoreError(f"{root} holds several backbones; choose one with --backbone: {held}")
    section = manifest.sections[fitting[0]]
    if "name" not in section.about:
        raise StoreError(
            f"{root}: version {manifest.version} names no backbone for {fitting[0]}, as this "
            "program always does; embed the images again, or restore an older version"
        )
    return fitting[0], section


def has_labels(root: str) -> bool:
    """Tells if an image of a store has a label; reads footers of parts only."""
    for key, section in open_store(root).sections.items():
        place = Place(root, key, section.fingerprint)
        for part in section.rows:
            with open_part(place, part) as opened:
                column = opened.schema_arrow.names.index("label")
                for group in range(opened.metadata.num_row_groups):
                    found = opened.metadata.row_group(group).column(column).statistics
                    if found is None or found.num_values:
                        return True
    return False


def read_features(
    root: str, backbone: str | None = None, on_progress: OnProgress | None = None
) -> tuple[Section, Features]:
    """Reads the embeddings of the store's newest version; returns their section as well."""
    return read_steadily(
        lambda: open_store(root),
        lambda manifest: _read(root, *choose_section(root, manifest, backbone), on_progress),
    )


def _read(
    root: str, key: str, section: Section, on_progress: OnProgress | None
) -> tuple[Section, Features]:
    place = Place(root, key, section.fingerprint)
    if not section.rows:
        raise StoreError(f"{root} holds no vectors; every file was rejected: see {root}/__rejects")
    columns = ["uri", "sha256", "label", "split"]
    rows = pa.concat_tables([read_part(place, p, columns) for p in section.rows])
    # By uri, so that examples do not depend on how parts divide the rows.
    order = pc.array_sort_indices(rows["uri"]).to_numpy()
    rows = rows.take(order)
    # In a file by content, which is the order of training.
    by_content = pc.array_sort_indices(rows["sha256"]).to_numpy().astype(np.intp)
    uris, sha256 = (rows[name].to_pylist() for name in columns[:2])
    labels, splits = (_repeated(rows[name]) for name in columns[2:])
    del rows
    vectors = read_vectors(place, section, order, by_content, on_progress)
    return section, Features(uris, sha256, labels, splits, vectors)


def _repeated(column: pa.ChunkedArray) -> list[str | None]:
    """Returns the texts of a column; equal ones share one object, to save memory."""
    encoded = column.combine_chunks().dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]
    return [values[index] for index in encoded.indices.fill_null(-1).to_pylist()]


def read_vectors(
    place: Place,
    section: Section,
    order: npt.NDArray[np.uint64],
    by_content: npt.NDArray[np.intp],
    on_progress: OnProgress | None = None,
) -> Vectors:
    """Reads the vectors of a section: float32 [N, D].

    Args:
        place: of the section.
        section: at least one part of rows.
        order: [N], indices that sort the rows.
        by_content: [N], the order of the vectors within the temporary file, if there is one.
        on_progress: called with the numbers of rows read and of all.
    """
    target = np.empty(len(order), np.intp)
    target[order] = np.arange(len(order))
    with open_part(place, section.rows[0]) as opened:
        data_type = opened.schema_arrow.field("vector").type
    numbers = f"float{data_type.value_type.bit_width}"  # to_pandas_dtype() would want pandas.
    vectors, start = allocate(target, data_type.list_size, numbers), 0
    for part in section.rows:
        for rows in iterate_part(place, part, ["vector"], _ROWS):
            if rows.schema.field("vector").type != data_type:
                raise damage(place, part.name, f"its vectors are not {data_type}, as others'")
            end = start + len(rows)
            vectors[target[start:end]] = vectors_of(rows)
            start = end
            if on_progress:
                on_progress(end, len(order))
    return arranged(vectors, by_content)
