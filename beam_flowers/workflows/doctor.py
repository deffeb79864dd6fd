"""Reads every image once and lists the faults of a collection."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from beam_flowers import files
from beam_flowers.backbones.compute import pool
from beam_flowers.doctor.facts import Facts, examine
from beam_flowers.doctor.findings import EXTREME, TINY, Finding, find_problems
from beam_flowers.doctor.near import MOST_BITS
from beam_flowers.errors import InputError
from beam_flowers.images.find import find_images
from beam_flowers.images.labels import are_splits, is_hidden
from beam_flowers.images.outputs import HEAD, Writing, require_ending
from beam_flowers.images.recipe import Limits
from beam_flowers.pages.collection_sections import diagnosis_page
from beam_flowers.pages.format import listed
from beam_flowers.pages.page import ENDINGS, Rendered, is_page, render
from beam_flowers.records import NOT_AN_IMAGE, HiddenFile, Image, Reject
from beam_flowers.workflows.progress import Progress

FORMAT = "beam-flowers doctor 1"

_BLOCK = 1024
_OURS = re.compile(
    rf'\{{\n "format": "{FORMAT}"|\{{\n "files": \d+,\n "hidden": \d+,\n "labels": \[\n?  ?[{{\]]'
)
"""The beginning of the findings: with their format, or as they were before they had one."""


@dataclass(frozen=True)
class Diagnosis:
    """Holds the findings of `diagnose`.

    Attributes:
        files: of every file that is not hidden.
        hidden: files passed over.
        findings: the most severe first.
    """

    files: tuple[Facts, ...]
    hidden: int
    findings: tuple[Finding, ...]

    @property
    def images(self) -> list[str]:
        """Addresses of the files, without those that are no images."""
        return [f.image.uri for f in self.files if f.error_class != NOT_AN_IMAGE]

    def counts(self) -> list[tuple[str, int, int, int]]:
        """Returns (label, usable images, of them copies of others, unusable files), by label."""
        names = sorted({fact.image.label or "" for fact in self.files})
        usable = Counter(f.image.label or "" for f in self.files if not f.error_class)
        unusable = Counter(f.image.label or "" for f in self.files if f.error_class)
        contents = {(f.image.label or "", f.sha256) for f in self.files if not f.error_class}
        distinct = Counter(name for name, _ in contents)
        return [(n, usable[n], usable[n] - distinct[n], unusable[n]) for n in names]

    def as_dict(self) -> dict[str, Any]:
        """Returns all findings as JSON values."""
        columns = ("label", "images", "copies", "unusable")
        return {
            "format": FORMAT,
            "files": len(self.files),
            "hidden": self.hidden,
            "labels": [dict(zip(columns, row, strict=True)) for row in self.counts()],
            "findings": [{**asdict(f), "files": f.files} for f in self.findings],
        }


def diagnose(
    images: Sequence[str],
    splits: int = 3,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Reads each image once, on all cores; no network runs.

    Args:
        images: folders, globs, list files, manifests or images; see `find_images`.
        splits: number of splits that each class needs an image in.
        limits: what one image may cost.
        progress: gets the state of the run, again and again.

    Raises:
        InputError: if an input is missing or there is no file at all.
    """
    progress = progress or Progress()
    progress.begin("listing")
    found = list(dict.fromkeys(progress.counted(find_images(images))))
    rejects = [Facts(f.image, None, f[2], f[3]) for f in found if isinstance(f, Reject)]
    listed = list({f.uri: f for f in found if isinstance(f, Image)}.values())
    progress.begin("reading", len(listed), len(rejects))
    facts = (*rejects, *_examined(listed, limits or Limits(), progress))
    progress.begin("comparing")
    if not facts:
        raise InputError(f"there is no file in {', '.join(images)}; name a folder of images")
    hidden = sum(isinstance(f, HiddenFile) for f in found)
    problems = find_problems(facts, _class_folders(images), splits)
    return Diagnosis(facts, hidden, tuple(problems))


def is_findings(path: str) -> bool:
    """Tells if `write_json` wrote a file, in this version or an earlier one."""
    return bool(_OURS.match(files.read_bytes(path, HEAD).decode("utf-8", "replace")))


def check_output(output: str, writing: Writing) -> None:
    """Raises OutputError unless findings, or a page of them, may be written to `output`."""
    require_ending(output, (".json", *ENDINGS), "what doctor writes")
    is_ours = is_page if output.lower().endswith(ENDINGS) else is_findings
    writing.check_file(output, "findings of doctor", is_ours)


def _check_beside_images(output: str, diagnosis: Diagnosis, writing: Writing) -> None:
    # Without the flag no image is replaced, as none is ours; so there is no need to compare each.
    check_output(output, writing.reading(*diagnosis.images) if writing.overwrite else writing)


def write_json(diagnosis: Diagnosis, output: str, writing: Writing | None = None) -> None:
    """Writes all findings with all their files.

    Raises:
        OutputError: if something is there that must stay.
    """
    _check_beside_images(output, diagnosis, writing or Writing())
    text = json.dumps(diagnosis.as_dict(), indent=1, ensure_ascii=False)
    files.write_atomic(files.absolute(output), text.encode())


def write_page(
    diagnosis: Diagnosis,
    output: str,
    images: Sequence[str],
    splits: int,
    thumbnails: int,
    writing: Writing | None = None,
) -> Rendered:
    """Writes all findings with thumbnails as one HTML file.

    Args:
        diagnosis: what was found.
        output: the file.
        images: as they were given to `diagnose`.
        splits: likewise.
        thumbnails: most images to show; 0 for none.
        writing: the terms; by default nothing is replaced but a page of ours.

    Raises:
        OutputError: if something is there that must stay.
        InputError: if a package is missing.
    """
    _check_beside_images(output, diagnosis, writing or Writing())
    done = [
        ("Read", listed(images)),
        ("Files", f"{len(diagnosis.files):,}, and {diagnosis.hidden:,} hidden"),
        ("Splits asked for", f"{splits}, each with an image of every label"),
        ("Tiny", f"shorter side below {TINY} pixels"),
        ("Extreme shapes", f"longer side {EXTREME:g} times the shorter one or more"),
        ("Alike", f"perceptual hashes (DCT) that differ in {MOST_BITS} of 64 bits at most"),
    ]
    page = diagnosis_page(diagnosis.findings, diagnosis.files, diagnosis.counts(), done)
    rendered = render(page, thumbnails)
    files.write_atomic(files.absolute(output), rendered.html.encode("utf-8", "replace"))
    return rendered


def _examined(images: Sequence[Image], limits: Limits, progress: Progress) -> Iterator[Facts]:
    remaining, done, rejects = iter(images), 0, progress.state().rejects
    while block := list(islice(remaining, _BLOCK)):
        for facts in pool().map(lambda image: examine(image, limits), block):
            done, rejects = done + 1, rejects + bool(facts.error_class)
            progress.reach(done, rejects)
            yield facts


def _class_folders(images: Sequence[str]) -> Iterator[str]:
    """Returns the folders of classes, empty ones, too."""
    for root in map(files.absolute, images):
        if files.is_folder(root):
            folders = [e for e in files.list_folder(root) if e.kind == "folder"]
            if are_splits(e.name for e in folders):
                folders = [e for f in folders for e in files.list_folder(f.uri)]
            yield from (e.name for e in folders if e.kind == "folder" and not is_hidden(e.name))
