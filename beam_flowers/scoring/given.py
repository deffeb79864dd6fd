"""Holds labels, paths and further cells of scored images, which no score depends on.

Rows of a score table stay as long as the image does. Its given label or path may change meanwhile,
so that they are no part of the rows: they are added when a table is written as one file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers import files
from beam_flowers.images.manifest import is_manifest
from beam_flowers.images.manifest_rows import address_of, read_further

GIVEN_LABEL, RELATIVE_PATH = "given_label", "relative_path"
_OURS = re.compile(
    r"uri|sha256|label(_\w+)?|score(_\d+)?|top_k|model_id|labels|rule|format|bytes|modified|"
    rf"{GIVEN_LABEL}|{RELATIVE_PATH}"
)
_CLASH = "input_"
_BLOCK = 10_000


@dataclass(frozen=True)
class GivenImages:
    """Holds the given labels and paths of N images, each uri once.

    Attributes:
        rows: columns `uri`, `given_label` (None without a label) and `relative_path`.
    """

    rows: pa.Table

    @classmethod
    def of(cls, images: Iterable[tuple[str, str | None, str]]) -> GivenImages:
        """Takes uris with labels and paths; they may be as many as Arrow has room for."""
        images, blocks = iter(images), []
        schema = pa.schema([(name, pa.string()) for name in ("uri", GIVEN_LABEL, RELATIVE_PATH)])
        while block := list(islice(images, _BLOCK)):
            arrays = [pa.array(column, pa.string()) for column in zip(*block, strict=True)]
            blocks.append(pa.record_batch(arrays, schema=schema))
        return cls(pa.Table.from_batches(blocks, schema))

    def columns_for(self, uris: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Returns the given labels and the paths of some uris, None where one is not known."""
        rows = self.rows.combine_chunks()
        at = pc.index_in(uris, value_set=rows["uri"])
        return rows[GIVEN_LABEL].take(at), rows[RELATIVE_PATH].take(at)


@dataclass(frozen=True)
class FurtherColumns:
    """Holds the further columns of manifests, as text.

    Attributes:
        names: of the columns, in their order.
        cells: for each uri its cells by column.
    """

    names: Sequence[str] = ()
    cells: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, sources: Iterable[str]) -> FurtherColumns:
        """Reads the manifests among the sources of images; the first row about an image counts.

        Raises:
            InputError: a manifest cannot be read.
        """
        names: dict[str, None] = {}
        cells: dict[str, dict[str, str]] = {}
        for uri in filter(_is_manifest_file, map(files.absolute, sources)):
            for row in read_further(uri):
                if row.cells:
                    names.update(dict.fromkeys(row.cells))
                    cells.setdefault(files.printable(address_of(row.uri, uri)), row.cells)
        return cls(tuple(names), cells)


def _is_manifest_file(uri: str) -> bool:
    return is_manifest(uri) and files.exists(uri) and not files.is_folder(uri)


def with_given(scores: pa.Table, given: GivenImages, further: FurtherColumns) -> pa.Table:
    """Returns the rows of scores with given labels, further columns, and paths, in this order.

    A further column whose name is one of a score table gets `input_` before it.
    """
    labels, paths = given.columns_for(scores["uri"])
    scores = scores.append_column(GIVEN_LABEL, labels)
    uris = scores["uri"].to_pylist() if further.names else []
    for name in further.names:
        values = [further.cells.get(uri, {}).get(name) for uri in uris]
        named = f"{_CLASH}{name}" if _OURS.fullmatch(name) else name
        while named in scores.schema.names:
            named = _CLASH + named
        scores = scores.append_column(named, pa.array(values, pa.string()))
    return scores.append_column(RELATIVE_PATH, paths)
