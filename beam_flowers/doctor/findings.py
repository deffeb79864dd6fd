"""Turns facts about files into findings about the collection, each with its remedy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from beam_flowers.doctor.facts import Facts, looks_are_known
from beam_flowers.doctor.near import groups_alike
from beam_flowers.images.formats import EXTENSIONS
from beam_flowers.images.labels import collisions
from beam_flowers.records import NOT_AN_IMAGE

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Severities in their order. `error`: training would fail or lose a class; `warning`: results
suffer; `note`: the commands deal with it by themselves."""

TINY = 64
"""Shorter side in pixels below which enlarging makes up most of what the backbone sees."""
EXTREME = 4.0
"""Ratio of sides from which too little is left in the square that the backbone sees."""
FEW = 20
"""Images of a class below which its accuracy is a matter of luck; retrain.py's own warning."""

_ANY_EXTENSION = frozenset(e for extensions in EXTENSIONS.values() for e in extensions)
_TRAITS = {
    "16-bit": "of 16 bits a channel, reduced to 8",
    "alpha": "with transparency, which is laid over white",
    "animated": "of several frames, of which the first is used",
    "cmyk": "in print colours (CMYK), converted without their colour profile",
    "rotated": "turned by their EXIF orientation; they are put upright before the network",
}


@dataclass(frozen=True)
class Finding:
    """A problem or a note, with its files.

    Attributes:
        kind: stable name.
        severity: one of `SEVERITIES`.
        message: the problem and its remedy.
        groups: the files, by uri; those that belong together, such as copies, in one group.
        error_class: error class of the future rejects; None if the files can be used.
    """

    kind: str
    severity: Severity
    message: str
    groups: tuple[tuple[str, ...], ...] = ()
    error_class: str | None = None

    @property
    def files(self) -> int:
        """Number of files."""
        return sum(map(len, self.groups))


def find_problems(
    facts: Sequence[Facts], folders: Iterable[str] = (), splits: int = 3
) -> list[Finding]:
    """Returns all findings, the most severe first.

    Args:
        facts: of every file that is not hidden.
        folders: names of the folders that stand for classes, also of those without images.
        splits: number of splits that each class needs an image in.
    """
    usable = [fact for fact in facts if fact.error_class is None]
    findings = [
        *_unusable(facts),
        *_classes(usable, folders, splits),
        *_copies(usable),
        *_alike(usable),
        *_odd_images(usable),
    ]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _unusable(facts: Sequence[Facts]) -> Iterator[Finding]:
    unusable = [fact for fact in facts if fact.error_class]
    groups = _grouped(unusable, lambda f: (f.error_class or "", _extension(f) in _ANY_EXTENSION))
    for (error_class, named_as_image), members in sorted(groups.items()):
        message = f"will be rejected as {error_class}: {members[0].message}"
        severity: Severity = "warning"
        # A text file beside the images is no loss; a `.jpg` that is no image may be one.
        if error_class == NOT_AN_IMAGE and named_as_image:
            message = f"named as images; {message}"
        elif error_class == NOT_AN_IMAGE:
            severity = "note"
        yield Finding("unusable", severity, message, _singles(members), error_class)


def _classes(usable: Sequence[Facts], folders: Iterable[str], splits: int) -> Iterator[Finding]:
    contents: dict[str, set[str | None]] = defaultdict(set)
    for fact in usable:
        if fact.image.label is not None:
            contents[fact.image.label].add(fact.sha256)
    for name in sorted(set(folders) - contents.keys()):
        yield Finding("empty-class", "error", f"folder {name!r} holds no usable image")
    if len(contents) == 1:
        message = f"only one class, {next(iter(contents))!r}: a head needs two"
        yield Finding("one-class", "error", message)
    for names in collisions(contents):
        message = f"labels that differ in writing only: {', '.join(map(repr, names))}; rename one"
        yield Finding("colliding-labels", "error", message)
    for name, distinct in sorted(contents.items()):
        count = len(distinct)
        message = f"class {name!r} has {count} different image{'s' * (count != 1)}; "
        if count < splits:
            message += (
                f"each split needs one of its own, {splits} in all: add some, or leave the class "
                "out"
            )
            yield Finding("small-class", "error" if count < 2 else "warning", message)
        elif count < FEW:
            message += f"below {FEW} its accuracy is a matter of luck"
            yield Finding("small-class", "warning", message)
    if without := [fact for fact in usable if fact.image.label is None]:
        message = "without a label: scored, not trained on"
        yield Finding("no-label", "note", message, _singles(without))


def _copies(usable: Sequence[Facts]) -> Iterator[Finding]:
    groups = [g for g in _grouped(usable, lambda f: f.sha256).values() if len(g) > 1]
    return _repeated(
        groups,
        ("two-labels", "the same bytes under two labels: one of them is wrong"),
        (
            "duplicates",
            "the same bytes more than once: computed once, kept on one side of the split",
        ),
    )


def _alike(usable: Sequence[Facts]) -> Iterable[Finding]:
    if not looks_are_known():
        message = "images that look alike were not looked for: pip install 'beam-flowers[doctor]'"
        return [Finding("not-checked", "note", message)]
    known = [fact for fact in usable if fact.look is not None]
    groups = [[known[i] for i in g] for g in groups_alike([f.look or 0 for f in known])]
    return _repeated(
        # Groups of equal bytes only are reported as copies.
        [group for group in groups if len({fact.sha256 for fact in group}) > 1],
        (
            "alike-two-labels",
            "images that look alike under two labels: look whether one of them is wrong",
        ),
        (
            "alike",
            "images that look alike: on both sides of a split they make the accuracy look "
            "better than it is",
        ),
    )


def _repeated(
    groups: Iterable[list[Facts]], two_labels: tuple[str, str], one_label: tuple[str, str]
) -> Iterator[Finding]:
    """Yields a finding, given as kind and message, for groups with two labels and with one."""
    by_labels = _grouped(groups, lambda group: len({fact.image.label for fact in group}) > 1)
    cases: tuple[tuple[bool, Severity, tuple[str, str]], ...] = (
        (True, "warning", two_labels),
        (False, "note", one_label),
    )
    for several, severity, (kind, message) in cases:
        if members := by_labels.get(several):
            uris = tuple(tuple(sorted(fact.image.uri for fact in group)) for group in members)
            yield Finding(kind, severity, message, uris)


def _odd_images(usable: Sequence[Facts]) -> Iterator[Finding]:
    renamed = [fact for fact in usable if _extension(fact) not in EXTENSIONS[fact.format]]
    example = (
        f"{renamed[0].image.uri.rpartition('/')[2]!r} is a {renamed[0].format}" if renamed else ""
    )
    cases: list[tuple[str, Severity, str, list[Facts]]] = [
        (
            "tiny",
            "warning",
            f"shorter side below {TINY} pixels",
            [f for f in usable if min(f.width, f.height) < TINY],
        ),
        (
            "extreme-shape",
            "warning",
            f"longer side {EXTREME:g} times the shorter one or more: the network sees a square",
            [f for f in usable if max(f.width, f.height) >= EXTREME * min(f.width, f.height)],
        ),
        (
            "blank",
            "warning",
            "of one colour all over: an export that failed, or a covered lens",
            [f for f in usable if f.blank],
        ),
        (
            "wrong-extension",
            "note",
            f"extension and content differ ({example}): read all the same",
            renamed,
        ),
        *(
            (trait, "note", message, [f for f in usable if trait in f.traits])
            for trait, message in _TRAITS.items()
        ),
    ]
    for kind, severity, message, members in cases:
        if members:
            yield Finding(kind, severity, message, _singles(members))


def _extension(fact: Facts) -> str:
    return fact.image.uri.rpartition(".")[2].lower()


def _grouped(items: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    groups: dict[K, list[V]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _singles(facts: Iterable[Facts]) -> tuple[tuple[str, ...], ...]:
    return tuple((fact.image.uri,) for fact in facts)
