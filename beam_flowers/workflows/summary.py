"""Counts the results of a run over images."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class EmbedSummary:
    """Counts the files of a run: `embedded + reused + rejected + hidden = total`.

    Attributes:
        embedded: rows whose vectors were computed now.
        reused: rows whose vectors were there: known, moved, copied or doubled files.
        rejected: files in the reject table.
        hidden: files passed over.
        total: files listed.
        failures: rejects other than files that are no images.
        dataset_hash: of the section written.
        reasons: the rejected files by error class.
        seconds: that threads were busy, by stage (see `records.Seconds`); empty where nothing
            was computed.
        lost: rows of parts that were found gone or damaged; those of listed images were made
            again.
        held: stored rows whose files are gone and that stay, since they are more than
            `RunOptions.max_removed_fraction` allows.
        unread: files that look unchanged and could not be read, so that their rows stay, by the
            class of the error.
        replaced: bytes of the parts that this run replaced and that older versions keep beside the
            new ones; 0 unless they are a great part of the section.
    """

    embedded: int
    reused: int
    rejected: int
    hidden: int
    total: int
    failures: int
    dataset_hash: str
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    lost: int = 0
    held: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    replaced: int = field(default=0, compare=False)

    @property
    def rows(self) -> int:
        return self.embedded + self.reused

    @property
    def bad_fraction(self) -> float:
        """Failures among the files that are meant to be images."""
        return self.failures / max(self.failures + self.rows, 1)

    def __str__(self) -> str:
        return (
            f"embedded {self.embedded}, reused {self.reused}, rejected {self.rejected}, "
            f"hidden {self.hidden}, of {self.total}"
        )

    @property
    def details(self) -> str:
        """Rejects by reason and seconds by stage, a line each."""
        reasons = ", ".join(f"{name} {count}" for name, count in sorted(self.reasons.items()))
        seconds = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())
        lines = [f"rejected: {reasons}"] * bool(reasons)
        lines += [f"seconds of all threads: {seconds}"] * bool(seconds)
        return "\n".join(lines)
