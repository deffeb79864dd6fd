"""Makes the page about a collection before it is embedded: each finding with its images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from beam_flowers.doctor.facts import Facts as FileFacts
from beam_flowers.doctor.findings import SEVERITIES, Finding, Severity
from beam_flowers.pages.format import counted, listed, shown
from beam_flowers.pages.sections import Card, Column, Gallery, Page, Section, Table, Tile
from beam_flowers.pages.sections import Facts as FactList

MOST_CARDS = 120
"""Most images of a finding."""

_GROUP_CARDS = 12
"""Most images of one group: a few of a thousand copies are enough."""

_CONSEQUENCES = {
    "error": "training would fail or lose a class",
    "warning": "results suffer",
    "note": "dealt with by itself",
}
_UNUSABLE = "Unusable files"
_STRAY = "Not images"
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
    """Returns all findings, then the counts by label.

    Args:
        findings: the most severe first.
        files: all files that were read.
        counts: label, number of images, of copies among them, of unusable files.
        done: inputs and settings, names with values.
    """
    by_title: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.groups:
            by_title.setdefault(title_of(finding), []).append(finding)
    facts = {fact.image.uri: fact for fact in files}
    sections: list[Section] = [
        _summary(findings),
        *(_gallery(title, of_title, facts) for title, of_title in by_title.items()),
        _labels(counts),
        FactList("facts", "What was done", "", done),
    ]
    severities = Counter(finding.severity for finding in findings)
    usable, total = sum(not fact.error_class for fact in files), counted(len(files), "file")
    labels = sum(bool(name) and images > 0 for name, images, _, _ in counts)
    tiles = [
        Tile(f"{usable:,}", "images", f"of {total}", "labels"),
        Tile(f"{labels:,}", "labels", "", "labels"),
    ]
    for severity in SEVERITIES:
        count = severities[severity]
        attention = severity != "note" and count > 0
        tiles.append(
            Tile(f"{count:,}", f"{severity}s", _CONSEQUENCES[severity], "findings", attention)
        )
    lead = f"{usable:,} of {total} can be used as images. {_advice(severities)}"
    roots = sorted({fact.image.root.rstrip("/").rpartition("/")[2] for fact in files} - {""})
    return Page(
        f"Collection {listed(roots, 3)}".strip(),
        lead,
        tiles,
        [],
        sections,
        {uri: fact.sha256 for uri, fact in facts.items() if fact.sha256},
        {uri: fact.message for uri, fact in facts.items() if fact.error_class},
    )


def title_of(finding: Finding) -> str:
    """Returns a finding in a few words; findings with one title share a section."""
    if finding.error_class:
        return _STRAY if finding.severity == "note" else _UNUSABLE
    return _TITLES.get(finding.kind, finding.kind)


def _advice(severities: Counter[Severity]) -> str:
    if severities["error"]:
        return "Training would fail or lose a class: see to the errors first."
    if severities["warning"]:
        return "Nothing stands in the way of a training; the warnings are worth a look."
    return "Nothing to see to."


def _id(title: str) -> str:
    return re.sub(r"\W+", "-", title).strip("-").lower()


def _summary(findings: Sequence[Finding]) -> Table:
    names = ("finding", "what it is, what to do", "files", "severity")
    columns = [Column(name, "number" if name == "files" else "text") for name in names]
    rows = [
        [title_of(f), f"{f.message[:1].upper()}{f.message[1:]}.", f.files or None, f.severity]
        for f in findings
    ]
    links = [_id(title_of(finding)) if finding.groups else "" for finding in findings]
    note = "" if rows else "None: every file is a sound image of its own, in a class large enough."
    return Table("findings", "Findings", note, columns, rows, links=links)


def _gallery(title: str, findings: Sequence[Finding], facts: Mapping[str, FileFacts]) -> Gallery:
    cards: list[Card] = []
    sizes: list[int] = []
    for group in (group for finding in findings for group in finding.groups):
        uris = group[:_GROUP_CARDS]
        if len(cards) + len(uris) > MOST_CARDS:
            break
        cards += [_card(facts[uri]) for uri in uris]
        sizes.append(len(uris))
    total = sum(finding.files for finding in findings)
    severity = findings[0].severity.capitalize()
    message = findings[0].message if len(findings) == 1 else "will be rejected, each for its reason"
    note = f"{severity}: {message}.{shown(len(cards), total, 'the first ones')}"
    together = any(size > 1 for size in sizes)
    return Gallery(_id(title), title, note, cards, total, sizes if together else ())


def _card(fact: FileFacts) -> Card:
    label = "no label" if fact.image.label is None else fact.image.label
    size = f"{fact.width} × {fact.height} {fact.format}"
    return Card(fact.image.uri, label, fact.error_class or size)


def _labels(counts: Sequence[tuple[str, int, int, int]]) -> Table:
    columns = [Column("label"), *(Column(n, "number") for n in ("images", "copies", "unusable"))]
    rows = [[name or "(no label)", *numbers] for name, *numbers in counts]
    note = "Copies: images whose bytes are those of another one with this label."
    return Table("labels", "By label", note, columns, rows)
