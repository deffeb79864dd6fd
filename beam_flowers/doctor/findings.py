"""Facts about files → findings about the collection, each with what to do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from beam_flowers.doctor.facts import Facts, looks_are_known
from beam_flowers.doctor.near import groups_alike
from beam_flowers.images.labels import collisions
from beam_flowers.records import NOT_AN_IMAGE

K = TypeVar("K", bound=Hashable)
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""`error`: training would fail or a class be lost; `warning`: results suffer; `note`: good to
know, dealt with by itself."""

TINY = 64
"""Pixels of the shorter side below which a picture is mostly made up by enlarging it."""
EXTREME = 4.0
"""Longer by shorter side from which a network, which sees a square, sees too little of it."""
FEW = 20
"""Pictures of a class below which its accuracy is a matter of luck; retrain.py's own warning."""

_EXTENSIONS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "mpo"),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm", "pnm", "pfm"),
    "AVIF": ("avif", "avifs"),
    "HEIC": ("heic", "heics", "heif", "heifs", "hif"),
    "JPEG2000": ("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"),
}
_ANY_EXTENSION = frozenset(e for known in _EXTENSIONS.values() for e in known)
_TRAITS = {
    "rotated": "turned by their EXIF orientation; they are put upright before the network",
    "cmyk": "in print colours (CMYK), converted without their colour profile",
    "alpha": "with transparency, which is laid over white",
    "16-bit": "of 16 bits a channel, reduced to 8",
    "animated": "of several frames, of which the first is used",
}


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Attributes:
        kind: stable name.
        severity: see `SEVERITIES`.
        message: what it is, and what to do.
        groups: the files, by uri; those that belong together, such as copies, in one group.
        error_class: of files that will be rejected: as what.
    """

    kind: str
    severity: Severity
    message: str
    groups: tuple[tuple[str, ...], ...] = ()
    error_class: str | None = None

    @property
    def files(self) -> int:
        return sum(map(len, self.groups))


def find_problems(
    facts: Sequence[Facts], folders: Iterable[str] = (), splits: int = 3
) -> list[Finding]:
    """All findings, the most severe first.

    Args:
        facts: of every file that is not hidden.
        folders: names of the folders that stand for classes, with or without pictures in them.
        splits: number of splits that each class needs a picture in.
    """
    usable = [fact for fact in facts if fact.error_class is None]
    found = [
        *_unusable(facts),
        *_classes(usable, folders, splits),
        *_copies(usable),
        *_alike(usable),
        *_shapes(usable),
        *_names(usable),
    ]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _unusable(facts: Sequence[Facts]) -> Iterator[Finding]:
    unusable = [fact for fact in facts if fact.error_class]
    groups = _grouped(unusable, lambda f: (f.error_class or "", _named_as_picture(f)))
    for (error_class, named), members in sorted(groups.items()):
        # A stray text file is passed over in peace; a `.jpg` that is none is a picture lost.
        stray = error_class == NOT_AN_IMAGE and not named
        message = f"will be rejected as {error_class}: {members[0].message}"
        if error_class == NOT_AN_IMAGE and named:
            message = f"named as pictures; {message}"
        severity: Severity = "note" if stray else "warning"
        yield Finding("unusable", severity, message, _singles(members), error_class)


def _classes(usable: Sequence[Facts], folders: Iterable[str], splits: int) -> Iterator[Finding]:
    contents: dict[str, set[str | None]] = defaultdict(set)
    for fact in usable:
        if fact.image.label is not None:
            contents[fact.image.label].add(fact.sha256)
    for name in sorted(set(folders) - contents.keys()):
        yield Finding("empty-class", "error", f"folder {name!r} holds no usable picture")
    if len(contents) == 1:
        yield Finding(
            "one-class", "error", f"only one class, {next(iter(contents))!r}: a head needs two"
        )
    for names in collisions(contents):
        yield Finding(
            "colliding-labels",
            "error",
            f"labels that differ in writing only: {', '.join(map(repr, names))}; rename one",
        )
    for name, distinct in sorted(contents.items()):
        if len(distinct) < splits:
            message = (
                f"class {name!r} has {_pictures(len(distinct))}; each split needs one of "
                f"its own, {splits} in all: add some, or leave the class out"
            )
            yield Finding("small-class", "error" if len(distinct) < 2 else "warning", message)
        elif len(distinct) < FEW:
            yield Finding(
                "small-class",
                "warning",
                f"class {name!r} has {_pictures(len(distinct))}; below {FEW} its accuracy "
                "is a matter of luck",
            )
    without = [fact for fact in usable if fact.image.label is None]
    if without:
        yield Finding(
            "no-label", "note", "without a label: scored, not trained on", _singles(without)
        )


def _copies(usable: Sequence[Facts]) -> Iterator[Finding]:
    groups = [g for g in _grouped(usable, lambda f: f.sha256).values() if len(g) > 1]
    torn, same = _by_labels(groups)
    if torn:
        message = "the same bytes under two labels: one of them is wrong"
        yield Finding("two-labels", "warning", message, _uris(torn))
    if same:
        message = "the same bytes more than once: computed once, kept on one side of the split"
        yield Finding("duplicates", "note", message, _uris(same))


def _alike(usable: Sequence[Facts]) -> Iterator[Finding]:
    if not looks_are_known():
        message = "pictures that look alike were not looked for: pip install 'beam-flowers[doctor]'"
        yield Finding("not-checked", "note", message)
        return
    known = [fact for fact in usable if fact.look is not None]
    groups = [[known[i] for i in g] for g in groups_alike([f.look or 0 for f in known])]
    groups = [g for g in groups if len({fact.sha256 for fact in g}) > 1]
    torn, same = _by_labels(groups)
    if torn:
        message = "pictures that look alike under two labels: look whether one of them is wrong"
        yield Finding("alike-two-labels", "warning", message, _uris(torn))
    if same:
        message = (
            "pictures that look alike: on both sides of a split they make the accuracy look "
            "better than it is"
        )
        yield Finding("alike", "note", message, _uris(same))


def _by_labels(groups: Iterable[list[Facts]]) -> tuple[list[list[Facts]], list[list[Facts]]]:
    """The groups whose files have several labels, and those that have one."""
    torn: list[list[Facts]] = []
    same: list[list[Facts]] = []
    for group in groups:
        (torn if len({fact.image.label for fact in group}) > 1 else same).append(group)
    return torn, same


def _shapes(usable: Sequence[Facts]) -> Iterator[Finding]:
    tiny = [fact for fact in usable if min(fact.width, fact.height) < TINY]
    if tiny:
        yield Finding("tiny", "warning", f"shorter side below {TINY} pixels", _singles(tiny))
    extreme = [f for f in usable if max(f.width, f.height) >= EXTREME * min(f.width, f.height)]
    if extreme:
        message = (
            f"longer side {EXTREME:g} times the shorter one or more: the network sees a square"
        )
        yield Finding("extreme-shape", "warning", message, _singles(extreme))

    blank = [fact for fact in usable if fact.blank]
    if blank:
        message = "of one colour all over: an export that failed, or a covered lens"
        yield Finding("blank", "warning", message, _singles(blank))


def _names(usable: Sequence[Facts]) -> Iterator[Finding]:
    wrong = [fact for fact in usable if not _fits(fact)]
    if wrong:
        first = wrong[0]
        message = (
            f"extension and content differ ({first.image.uri.rpartition('/')[2]!r} is a "
            f"{first.format}): read all the same"
        )
        yield Finding("wrong-extension", "note", message, _singles(wrong))
    counts = Counter(trait for fact in usable for trait in fact.traits)
    for trait in sorted(counts):
        members = [fact for fact in usable if trait in fact.traits]
        yield Finding(trait, "note", _TRAITS[trait], _singles(members))


def _fits(fact: Facts) -> bool:
    return _extension(fact) in _EXTENSIONS[fact.format]


def _named_as_picture(fact: Facts) -> bool:
    return _extension(fact) in _ANY_EXTENSION


def _extension(fact: Facts) -> str:
    return fact.image.uri.rpartition(".")[2].lower()


def _grouped(facts: Iterable[Facts], key: Callable[[Facts], K]) -> dict[K, list[Facts]]:
    groups: dict[K, list[Facts]] = defaultdict(list)
    for fact in facts:
        groups[key(fact)].append(fact)
    return groups


def _singles(facts: Iterable[Facts]) -> tuple[tuple[str, ...], ...]:
    return tuple((fact.image.uri,) for fact in facts)


def _uris(groups: Iterable[Iterable[Facts]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(sorted(fact.image.uri for fact in group)) for group in groups)


def _pictures(count: int) -> str:
    return f"{count} different picture{'s' * (count != 1)}"
