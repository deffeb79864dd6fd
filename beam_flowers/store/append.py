"""Adds parts that a user's own pipeline wrote to a store, in one commit."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from beam_flowers import files
from beam_flowers.errors import StoreError
from beam_flowers.records import Image, RootListed
from beam_flowers.store.commits import (
    Manifest,
    Section,
    committed,
    encoding_in,
    latest,
    publish,
    read_manifest,
    require_outer_table,
    require_table_place,
    versions,
)
from beam_flowers.store.features import section_name
from beam_flowers.store.ledger import Ledger, Rules
from beam_flowers.store.parts import (
    Part,
    Place,
    RejectRows,
    RowKind,
    holds_rejects,
    read_part,
    write_part,
)
from beam_flowers.store.plan import derive_parts, stored_rows, stored_table
from beam_flowers.store.rebase import Intent, LateError, commit_on_newest
from beam_flowers.store.schema import StoreRows, images_of
from beam_flowers.store.table import until_committed


class TwoRowsError(StoreError):
    """Error about two new rows of one uri."""


def store_place(
    store: str, backbone: str, fingerprint: str, vectors: str = "float32"
) -> tuple[Place, StoreRows]:
    """Returns the place where one run writes a backbone's rows, and the kind of these rows.

    Args:
        store: folder of the store.
        backbone: name of the backbone.
        fingerprint: of the backbone and its recipe, hex.
        vectors: dtype of the vectors, float32 or float16; the fingerprint covers it.
    """
    root = files.absolute(store)
    require_outer_table(root)
    require_table_place(root)
    place = Place(root, section_name(backbone, fingerprint), fingerprint, secrets.token_hex(8))
    encoding = encoding_in(committed(latest(root), place))
    return place, StoreRows(fingerprint, backbone, vectors, encoding)


def append_window(
    place: Place,
    row_kind: RowKind,
    about: dict[str, Any],
    parts: Sequence[Part],
    newest: bool = True,
) -> int:
    """Appends the parts of one window of a stream; a repeated call adds them once.

    Each window is one of several commits of a run. See `append_parts`.

    Args:
        place: the section, and the run that wrote the parts.
        row_kind: of the rows.
        about: description of the section.
        parts: of rows and rejects, sorted by name.
        newest: True keeps of several rows of one uri the one with the newest `modified`. A file
            that changed between two listings may have two in a window.

    Returns:
        The number of rows added.

    Raises:
        TwoRowsError: two of the rows have one uri, and `newest` is False.
    """
    # The id follows from the parts, so that a repeated window finds its own commit.
    names = "".join(part.name for part in parts)
    run = hashlib.sha256(f"{place.run}{names}".encode()).hexdigest()[:16]
    window = replace(place, run=run)
    changed = replace(place, run=hashlib.sha256(f"{run}-newest".encode()).hexdigest()[:16])
    if all(files.exists(place.work(part.name)) for part in parts):
        try:
            return append_parts(window, row_kind, about, parts)
        except TwoRowsError:
            if not newest:
                raise
    # All commits are searched only here, as there may be very many: missing parts or two rows of
    # one uri may mean that one of them has taken this window already.
    done = _commit_of(window, changed)
    if done is None:
        added = append_parts(changed, row_kind, about, list(_newest(changed, row_kind, parts)))
    else:
        publish(place.root)
        added = int(done.counts["rows"])
    for part in parts:  # Committed parts have left `__work`.
        files.delete(place.work(part.name))
    return added


def _commit_of(place: Place, *others: Place) -> Manifest | None:
    """Finds the version that one of the runs committed, also below newer ones."""
    runs = {place.run, *(other.run for other in others)}
    known = (read_manifest(place.root, version) for version in reversed(versions(place.root)))
    return next((manifest for manifest in known if manifest.run in runs), None)


def _newest(place: Place, row_kind: RowKind, parts: Sequence[Part]) -> Iterator[Part]:
    """Yields the parts without outdated rows; parts that lose some rows are written again."""
    for part, rows in zip(parts, _newest_rows(place, row_kind, parts), strict=True):
        if len(rows) == part.rows:
            yield part
        elif rows:
            own = RejectRows() if part.is_rejects else row_kind
            yield write_part(place, own, read_part(place, part).take(rows))


def _newest_rows(place: Place, row_kind: RowKind, parts: Sequence[Part]) -> list[list[int]]:
    """Returns, for each part, indices of its rows that are the newest of their files.

    Of rows that are equally new the last one stays.
    """
    newest: dict[str, tuple[int, int, int]] = {}
    for i, part in enumerate(parts):
        for j, image in enumerate(images_of(read_part(place, part, ["uri", "modified"]))):
            found = (image.modified or 0, i, j)
            newest[image.uri] = max(found, newest.get(image.uri, found))
    stay: list[list[int]] = [[] for _ in parts]
    for _, i, j in sorted(newest.values(), key=lambda found: found[1:]):
        each = 1 if parts[i].is_rejects else row_kind.rows_each
        stay[i].extend(range(j - each + 1, j + 1))
    return stay


def append_parts(
    place: Place,
    row_kind: RowKind,
    about: dict[str, Any],
    parts: Sequence[Part],
    roots: Sequence[str] = (),
) -> int:
    """Commits `parts` from the table's `__work`; they replace stored rows of the same uris.

    Args:
        place: the section.
        row_kind: of the rows.
        about: description of the section.
        parts: of rows or rejects.
        roots: folders whose stored rows and rejects are all removed, whatever their uris.

    Returns:
        The number of rows added.

    Raises:
        TwoRowsError: two of the new rows have one uri.
        StoreError: other writers were first each time.
    """
    if not parts:
        return 0

    def attempt(base: Manifest) -> bool | None:
        if base.run == place.run:
            return True
        # An earlier try may have committed them, and others may have replaced them since.
        if not all(files.exists(place.work(part.name)) for part in parts) and _commit_of(place):
            return True
        held = base.sections.get(place.section)
        if held and held.fingerprint != place.fingerprint:
            raise StoreError(
                f"{place.root}: another writer put rows of another kind there meanwhile, such as "
                "scores by other models; write into a folder of your own"
            )
        known, described = committed(base, place), dict(about)
        if isinstance(row_kind, StoreRows):
            # Another run may have changed the encoding since this one looked.
            encoding = encoding_in(known) if known.parts else row_kind.encoding
            described = {"name": row_kind.backbone, **about, "encoding": encoding}
        names = {p.name: p for p in (*_others(parts, known, place, row_kind, roots), *parts)}
        found = {image.root for part in parts for image in _images(place, part.name)}
        section = Section(
            place.fingerprint,
            described,
            tuple(names[n] for n in sorted(names)),
            tuple(sorted({*known.roots, *filter(None, found)})),
            known.lost,
        )
        with suppress(LateError):
            intent = Intent(base.version, section, {"rows": _count(parts)})
            return commit_on_newest(place, intent) is not None or None
        return None

    until_committed(place.root, attempt)
    publish(place.root)
    return _count(parts)


def _others(
    parts: Sequence[Part], known: Section, place: Place, row_kind: RowKind, roots: Sequence[str]
) -> Iterator[Part]:
    """Yields the known parts, rows and rejects, without files of `roots` and of the new parts."""
    with closing(Ledger()) as ledger:
        ledger.list_found(RootListed(root, True) for root in roots)
        for part in parts:
            ledger.list_found(_images(place, part.name))
        for part in known.parts:
            ledger.add_part(part.name, stored_rows(place, part.name), part.is_rejects, True)
        ledger.join(Rules(verify=True))
        each = [1 if part.is_rejects else row_kind.rows_each for part in parts]
        if ledger.listed() != sum(p.rows / n for p, n in zip(parts, each, strict=True)):
            raise TwoRowsError(f"{place.root}: two of the new rows have one uri; keep one of them")
        described = {part.name: part for part in known.parts}
        whole, partly = ledger.part_names()
        yield from (described[name] for name in whole)
        for name in partly:
            images = stored_table(ledger.remaining(name))
            own = RejectRows() if holds_rejects(name) else row_kind
            yield from derive_parts(place, own, name, images, "uri", described=described[name])


def _images(place: Place, name: str) -> Iterator[Image]:
    return (row.image for row in stored_rows(place, name))


def _count(parts: Sequence[Part]) -> int:
    """Counts the rows in parts, without rejects."""
    return sum(part.rows for part in parts if not part.is_rejects)
