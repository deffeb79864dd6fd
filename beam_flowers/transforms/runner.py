"""Runs a pipeline with Beam's options as the user gave them."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from beam_flowers import files
from beam_flowers.errors import BeamFlowersError, InputError, WorkerError
from beam_flowers.store.commits import Manifest
from beam_flowers.store.lease import withdraw
from beam_flowers.store.names import BEAT
from beam_flowers.store.plan import leave_result
from beam_flowers.transforms.jobs import how_to_cancel
from beam_flowers.transforms.preflight import PATIENCE, patience, signs_of_life, unfit

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult

    from beam_flowers.store.parts import Place

_SIGNS_OF_ANOTHER_PYTHON = (
    "No module named",
    "Can't get attribute",
    "cannot import name",
    "code() argument",
    "code expected at most",
    "unsupported pickle protocol",
    "bad marshal data",
)


def pipeline_options(options: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options from flags, with our own default for the runner.

    Raises:
        InputError: Beam does not know one, or not its value.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.runner import create_runner

    from beam_flowers.transforms.options import DEFAULT_RUNNER

    given = any(o.partition("=")[0] == "--runner" for o in options)
    default = [] if given else [f"--runner={DEFAULT_RUNNER}"]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            # Asked now, as Beam would refuse values, or the runner's name, when the pipeline runs.
            parsed = PipelineOptions([*default, *options])
            parsed.get_all_options()
            create_runner(parsed.view_as(StandardOptions).runner)
    except (ValueError, ImportError, AttributeError, SystemExit) as error:
        # Beam's parser prints all its flags and leaves the program; the last line is the reason.
        reason = said.getvalue().strip().rpartition("error: ")[2] or str(error)
        raise InputError(f"Beam does not take these options: {reason}") from error
    return parsed


def reach_files(options: Sequence[str]) -> None:
    """Lets what is read and written outside of a pipeline know keys, endpoints and the like.

    Raises:
        InputError: as `pipeline_options`.
    """
    from apache_beam.io.filesystems import FileSystems

    FileSystems.set_options(pipeline_options(options))


def run_pipeline(step: beam.PTransform, place: Place, options: Sequence[str]) -> None:
    """Runs the pipeline that consists of `step`, to its end.

    Args:
        step: begins with nothing; its steps run as `transforms.dofns.Step`s.
        place: where the run writes, and its workers' answers lie.
        options: Beam's, as flags.

    Raises:
        WorkerError: a worker is not set up as this process, or none has answered in time.
    """
    import apache_beam as beam

    pipeline = beam.Pipeline(options=pipeline_options(options))
    with _no_cell():
        pipeline | "Run" >> step
    try:
        result = pipeline.run()
        if not _wait(result, place, options):
            return
    except BeamFlowersError:
        raise
    except Exception as error:
        raise _explained(error) from error
    problems = problems_of(result)
    if problems:
        raise unfit(problems)


@contextlib.contextmanager
def _no_cell() -> Iterator[None]:
    """Lets Beam build a pipeline in a notebook as everywhere else.

    There it names steps after cells, and to do so imports its data frames, which beside pandas 3
    fails (Beam 2.77).
    """
    from apache_beam.utils import interactive_utils

    kept = interactive_utils.is_in_ipython
    interactive_utils.is_in_ipython = lambda: False
    try:
        yield
    finally:
        interactive_utils.is_in_ipython = kept


def problems_of(result: PipelineResult) -> list[str]:
    """Lists the problems that workers found with themselves; see `transforms.dofns.Step`."""
    from apache_beam.metrics import MetricsFilter

    from beam_flowers.transforms.dofns import PROBLEMS

    found = result.metrics().query(MetricsFilter().with_namespace(PROBLEMS))
    return sorted({counter.key.metric.name for counter in found["counters"]})


def _wait(result: PipelineResult, place: Place, options: Sequence[str]) -> bool:
    """Waits for the end, as long as workers give signs of life: not all runners miss them.

    Returns:
        False if the workers fell silent in the middle of the commit, which then was finished here.
    """
    # On a thread, so that this one can look for signs of life.
    raised: list[BaseException] = []
    waiting = threading.Thread(target=_to_the_end, args=(result, raised), daemon=True)
    waiting.start()
    try:
        _watch(waiting, place)
    except KeyboardInterrupt as interrupt:
        # Before the message about the job: from here on it commits nothing, or has committed.
        try:
            state = "committed" if _withdraw(place) else "withdrawn"
        except (OSError, BeamFlowersError):
            state = "unknown"
        raise KeyboardInterrupt(how_to_cancel(result, options, state)) from interrupt
    except WorkerError:
        committed = _withdraw(place)
        # A job whose workers hang may hang as well when it is cancelled.
        cancelling = threading.Thread(target=result.cancel, daemon=True)
        cancelling.start()
        cancelling.join(10)
        if committed is None:
            raise
        leave_result(place, {**committed.counts, "committed": True})
        return False
    # Here, and not on the thread, where nobody would catch it.
    if raised:
        raise raised[0]
    return True


def _withdraw(place: Place) -> Manifest | None:
    """Withdraws the run that writes to `place`; what it has begun to commit is committed."""
    # A job that looks at the workers only commits nothing.
    if not files.exists(place.run_file(BEAT)):
        return None
    return withdraw(place.root, place.run, by=place.run)


def _to_the_end(result: PipelineResult, raised: list[BaseException]) -> None:
    try:
        result.wait_until_finish()
    except BaseException as error:
        raised.append(error)


def _watch(waiting: threading.Thread, place: Place) -> None:
    signs: frozenset[Any] = frozenset()
    seen = time.monotonic()
    while waiting.is_alive():
        waiting.join(patience() / 10)
        try:
            found = signs_of_life(place)
        except (OSError, BeamFlowersError):
            continue  # A moment's trouble of the driver's own is none of the job's.
        if found != signs:
            signs, seen = found, time.monotonic()
        elif time.monotonic() - seen > patience() and waiting.is_alive():
            raise _silence(bool(signs))


def _silence(after_signs: bool) -> WorkerError:
    causes = (
        "the workers have died, for want of memory for example, and the runner has not noticed"
        if after_signs
        else "--environment_config names no worker pool; the pool's `python` is one without Beam "
        "and beam_flowers (put the right one first on the pool's PATH); the cluster has no free "
        "slot; no worker sees the place to write to"
    )
    return WorkerError(
        f"no worker gave a sign of life for {patience():g} seconds, so the job was cancelled. "
        f"Usual causes: {causes}. The workers' own logs say more; {PATIENCE}=SECONDS waits longer"
    )


def _explained(error: Exception) -> Exception:
    """Returns `error`, or its meaning if a worker could not unpickle a step."""
    lines = [line.strip() for line in str(error).splitlines()]
    # Runners pass errors of workers on as text, so that their class is not known.
    signs = (s for s in _SIGNS_OF_ANOTHER_PYTHON for line in lines if s in line)
    sign: Any = next(signs, None)
    if sign is None:
        return error
    reason = next(line for line in reversed(lines) if sign in line)
    return WorkerError(
        f"a worker cannot read the steps that this machine sends it ({reason}): it has no "
        "beam_flowers, or another one, or another Python; install there what is here"
    )
