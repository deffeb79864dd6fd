"""The page about a collection that no network has seen yet: each finding with its pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from beam_flowers.doctor.facts import Facts as FileFacts
from beam_flowers.doctor.findings import SEVERITIES, Finding
from beam_flowers.pages.format import counted, listed, shown
from beam_flowers.pages.sections import Card, Column, Gallery, Page, Section, Table, Tile
from beam_flowers.pages.sections import Facts as FactList

MOST_CARDS = 120
"""Pictures of a finding."""

_GROUP_CARDS = 12
"""Pictures that belong together: of a thousand copies a few say it."""

_UNUSABLE = "Unusable files"
_STRAY = "Not pictures"
_TITLES = {
    "no-label": "Without a label",
    "two-labels": "Same bytes, two labels",
    "duplicates": "Copies",
    "alike-two-labels": "Alike, two labels",
    "alike": "Alike",
    "tiny": "Tiny",
    "extreme-shape": "Extreme shapes",
    "blank": "Blank",
    "wrong-extension": "Wrong extension",
    "rotated": "Turned by EXIF",
    "cmyk": "CMYK",
    "alpha": "Transparency",
    "16-bit": "16 bits",
    "animated": "Animated",
    "empty-class": "Empty folder",
    "one-class": "One class",
    "colliding-labels": "Labels that collide",
    "small-class": "Small class",
    "not-checked": "Not checked",
}


def diagnosis_page(
    findings: Sequence[Finding],
    files: Sequence[FileFacts],
    counts: Sequence[tuple[str, int, int, int]],
    done: Sequence[tuple[str, str]],
) -> Page:
    """All findings, the most severe first, then the labels.

    Args:
        findings: in their order.
        files: all that was looked at.
        counts: by label: pictures, copies among them, unusable files.
        done: what was looked at and how, names with values.
    """
    facts = {fact.image.uri: fact for fact in files}
    sections: list[Section] = [
        _summary(findings),
        *(_gallery(title, found, facts) for title, found in _with_files(findings).items()),
        _labels(counts),
        FactList("facts", "What was done", "", done),
    ]
    roots = sorted({fact.image.root.rstrip("/").rpartition("/")[2] for fact in files} - {""})
    return Page(
        f"Collection {listed(roots, 3)}".strip(),
        _lead(findings, files),
        _tiles(findings, files, counts),
        [],
        sections,
        {uri: fact.sha256 for uri, fact in facts.items() if fact.sha256},
        {uri: fact.message for uri, fact in facts.items() if fact.error_class},
    )


def title_of(finding: Finding) -> str:
    """A finding in a few words; those of one title share a section."""
    if finding.error_class:
        return _STRAY if finding.severity == "note" else _UNUSABLE
    return _TITLES.get(finding.kind, finding.kind)


def _with_files(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.groups:
            found.setdefault(title_of(finding), []).append(finding)
    return found


def _id(title: str) -> str:
    return re.sub(r"\W+", "-", title).strip("-").lower()


def _lead(findings: Sequence[Finding], files: Sequence[FileFacts]) -> str:
    severities = Counter(str(finding.severity) for finding in findings)
    usable = sum(fact.error_class is None for fact in files)
    found = f"{usable:,} of {counted(len(files), 'file')} can be used as pictures. "
    if severities["error"]:
        return found + "Training would fail or lose a class: see to the errors first."
    if severities["warning"]:
        return found + "Nothing stands in the way of a training; the warnings are worth a look."
    return found + "Nothing to see to."


def _tiles(
    findings: Sequence[Finding],
    files: Sequence[FileFacts],
    counts: Sequence[tuple[str, int, int, int]],
) -> list[Tile]:
    severities = Counter(str(finding.severity) for finding in findings)
    usable = sum(fact.error_class is None for fact in files)
    labels = sum(bool(name) and pictures > 0 for name, pictures, _, _ in counts)
    about = ("training would fail or lose a class", "results suffer", "dealt with by itself")
    return [
        Tile(f"{usable:,}", "pictures", f"of {counted(len(files), 'file')}", "labels"),
        Tile(f"{labels:,}", "labels", "", "labels"),
        *(
            Tile(
                f"{severities[s]:,}", f"{s}s", detail, "findings", s != "note" and severities[s] > 0
            )
            for s, detail in zip(SEVERITIES, about, strict=True)
        ),
    ]


def _summary(findings: Sequence[Finding]) -> Table:
    columns = [
        Column("finding"),
        Column("what it is, what to do"),
        Column("files", "number"),
        Column("severity"),
    ]
    rows = [[title_of(f), _sentence(f.message), f.files or None, f.severity] for f in findings]
    links = [_id(title_of(finding)) if finding.groups else "" for finding in findings]
    note = (
        "" if rows else "None: every file is a sound picture of its own, in a class large enough."
    )
    return Table("findings", "Findings", note, columns, rows, links=links)


def _gallery(title: str, found: Sequence[Finding], facts: Mapping[str, FileFacts]) -> Gallery:
    cards: list[Card] = []
    sizes: list[int] = []
    for group in (group for finding in found for group in finding.groups):
        some = group[:_GROUP_CARDS]
        if len(cards) + len(some) > MOST_CARDS:
            break
        cards += [_card(facts[uri]) for uri in some]
        sizes.append(len(some))
    total = sum(finding.files for finding in found)
    severity = found[0].severity.capitalize()
    what = found[0].message if len(found) == 1 else "will be rejected, each for its reason"
    note = f"{severity}: {what}.{shown(len(cards), total, 'the first ones')}"
    together = any(size > 1 for size in sizes)
    return Gallery(_id(title), title, note, cards, total, sizes if together else ())


def _card(fact: FileFacts) -> Card:
    label = "no label" if fact.image.label is None else fact.image.label
    if fact.error_class:
        return Card(fact.image.uri, label, fact.error_class)
    return Card(fact.image.uri, label, f"{fact.width} × {fact.height} {fact.format}")


def _labels(counts: Sequence[tuple[str, int, int, int]]) -> Table:
    columns = [Column("label"), *(Column(n, "number") for n in ("pictures", "copies", "unusable"))]
    rows = [[name or "(no label)", *numbers] for name, *numbers in counts]
    note = "Copies: pictures whose bytes are those of another one with this label."
    return Table("labels", "By label", note, columns, rows)


def _sentence(message: str) -> str:
    return f"{message[:1].upper()}{message[1:]}."
