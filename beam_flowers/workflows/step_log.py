"""Writes the step log of a training: JSON lines, and summaries for TensorBoard."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

from beam_flowers import files
from beam_flowers.errors import InputError, OutputError
from beam_flowers.head.softmax import Head, TrainingStep


class Summaries:
    """Writes a run's steps to a new folder `run-<n>` in `folder`; nothing there is changed.

    `steps.jsonl` has a line a step. `train` and `validation` have TensorBoard's event files:
    `accuracy` and `cross_entropy`, and in `train` at the end a histogram of each parameter.

    Raises:
        OutputError: if the folder is a file, or cannot be made.
        InputError: if the folder is in the model's, or not on this machine.
    """

    def __init__(self, folder: str, model: str) -> None:
        self.folder = _new_run(folder, model)
        # It takes a moment to import, and only this needs it.
        from tensorboardX import SummaryWriter

        self._lines = (self.folder / "steps.jsonl").open("x", encoding="utf-8")
        self._writers = {
            name: SummaryWriter(str(self.folder / name)) for name in ("train", "validation")
        }
        self._last = 0

    def report(self, step: TrainingStep) -> None:
        """Takes a step."""
        self._lines.write(json.dumps(step._asdict()) + "\n")
        self._lines.flush()
        self._last = step.step
        self._write("train", step.train_accuracy, step.cross_entropy)
        if step.validation_accuracy is not None:
            self._write("validation", step.validation_accuracy, step.validation_cross_entropy)

    def add_weights(self, head: Head) -> None:
        """Takes the trained head."""
        for name, array in head.parameters.items():
            self._writers["train"].add_histogram(name, array, self._last)

    def __enter__(self) -> Summaries:
        return self

    def __exit__(self, *exception: object) -> None:
        for writer in self._writers.values():
            writer.close()
        self._lines.close()

    def _write(self, name: str, accuracy: float, cross_entropy: float | None) -> None:
        writer = self._writers[name]
        writer.add_scalar("accuracy", accuracy, self._last)
        if cross_entropy is not None:
            writer.add_scalar("cross_entropy", cross_entropy, self._last)


def _new_run(folder: str, model: str) -> Path:
    where = files.absolute(folder)
    if not files.is_local(where):
        raise InputError(f"summaries are written to this machine, not to {folder!r}")
    parents = (Path(where).resolve(), *Path(where).resolve().parents)
    if files.is_local(model) and Path(files.absolute(model)).resolve() in parents:
        raise InputError(
            f"the summaries folder {folder!r} lies in the model's, {model!r}; name another one"
        )
    if Path(where).exists() and not Path(where).is_dir():
        raise OutputError(
            f"the summaries folder {folder!r} is a file, which --overwrite does not replace "
            "either; name a folder"
        )
    runs = (Path(where, f"run-{number:03}") for number in count(1))
    run = next(run for run in runs if not run.exists())
    try:
        run.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot make {str(run)!r} for the summaries: {error}") from error
    return run
