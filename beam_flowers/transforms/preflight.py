"""Compares each worker with the driver before it reads an image."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import beam_flowers
from beam_flowers import files
from beam_flowers.backbones import hardware, quantised, weights
from beam_flowers.backbones.engine import require_runnable
from beam_flowers.backbones.reference import reference_digest
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BackboneError, WorkerError
from beam_flowers.records import Image
from beam_flowers.store.parts import Place

_ENGINES = ("onnxruntime", "openvino")
_PACKAGES = ("apache-beam", "numpy", *_ENGINES, "pillow", "pillow-heif", "pyarrow", "tensorflow")
# The same library under another name, without what GPUs need.
_VARIANTS = {"tensorflow": "tensorflow-cpu"}
_NONCE = "nonce"
_ANSWERS = "answers"
_REFERENCES = "references"
# Runs of which this process is a worker; the driver's own steps give their sign of life by it.
_ANSWERED_HERE: set[str] = set()

PROCESS = secrets.token_hex(8)
"""This process among all: containers may have host names and process ids in common."""

PATIENCE = "BEAM_FLOWERS_WORKER_TIMEOUT"
"""Environment variable: seconds without a sign of any worker until a run ends in an error."""


def patience() -> float:
    """Returns the seconds of `PATIENCE`, ten minutes by default."""
    return float(os.environ.get(PATIENCE, "600"))


@dataclass(frozen=True)
class Setup:
    """Describes the driver of a run. Small and picklable.

    Attributes:
        place: where the run writes; its `run_file`s hold the nonce and the workers' answers.
        nonce: what the driver wrote there.
        versions: see `versions`.
        backbones: whose weights every worker needs.
        readable: files and folders that every worker has to see.
        driver: the driver's `PROCESS`.
        processes: worker processes on one host, as far as Beam's options tell.
        threads: what `hardware.THREADS` is set to for the driver; empty if it is not.
        pulse: seconds between the signs of life that a worker gives.
    """

    place: Place
    nonce: str
    versions: tuple[tuple[str, str], ...]
    backbones: tuple[ResolvedBackbone, ...]
    readable: tuple[str, ...]
    driver: str
    processes: int
    threads: str
    pulse: float

    def problem(self) -> str:
        """Returns the reason why this process must not work for the run; empty if it may.

        The check runs once a process, which takes its share of the cores then.
        """
        return _problem(self)


def expected_setup(
    place: Place,
    options: Mapping[str, Any],
    backbones: Sequence[ResolvedBackbone] = (),
    readable: Sequence[str] = (),
) -> Setup:
    """Returns the setup of this process, the driver, and writes the nonce.

    Args:
        place: where the run writes.
        options: Beam's, by name, of the pipeline.
        backbones: see `Setup`.
        readable: see `Setup`.
    """
    nonce = secrets.token_hex(16)
    files.write_atomic(place.run_file(_NONCE), nonce.encode())
    return Setup(
        place,
        nonce,
        versions(),
        tuple(backbones),
        tuple(readable),
        PROCESS,
        processes_on_a_host(options),
        os.environ.get(hardware.THREADS, ""),
        patience() / 10,  # So that some signs of life may be lost.
    )


def processes_on_a_host(options: Mapping[str, Any]) -> int:
    """Returns the worker processes on one machine by Beam's options; 1 if they do not say."""
    if options.get("direct_running_mode") == "multi_processing":
        return int(options.get("direct_num_workers") or hardware.cores())
    return int(options.get("sdk_worker_parallelism") or 1)


@lru_cache(maxsize=1)
def versions() -> tuple[tuple[str, str], ...]:
    """Returns the installed versions by name on which vectors, parts and pickled steps depend."""
    python = ".".join(platform.python_version_tuple()[:2])
    packages = ((name, _version(name)) for name in _PACKAGES)
    return (("python", python), ("beam-flowers", _own_version()), *packages)


def _version(package: str) -> str:
    for name in (package, _VARIANTS.get(package, package)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def _own_version() -> str:
    """Returns a digest of the whole package's sources: two states of it may have one version."""
    folder, digest = Path(beam_flowers.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return f"sources {digest.hexdigest()[:8]}"


@lru_cache(maxsize=8)
def _problem(setup: Setup) -> str:
    # A pipeline in the driver's own process has all cores, as the user has set them.
    if setup.driver != PROCESS:
        hardware.share_cores(setup.processes, setup.threads)
    found = [*_other_versions(setup), *_unseen_store(setup)]
    found += [f"{uri} is not there" for uri in setup.readable if not files.exists(uri)]
    found += [text for backbone in setup.backbones for text in _weights_problem(backbone)]
    if not found:
        found += _other_arithmetic(setup)
    return f"{socket.gethostname()}: {'; '.join(found)}" if found else ""


def _other_versions(setup: Setup) -> Iterator[str]:
    own, used = dict(versions()), {backbone.engine for backbone in setup.backbones}
    for name, version in setup.versions:
        unused = name in _ENGINES and name not in used
        if own.get(name) != version and not unused:
            yield f"{name} is {own.get(name, 'unknown')} there and {version} here"


def _unseen_store(setup: Setup) -> Iterator[str]:
    """Looks for the nonce, answers if it is there, and else yields the reason why not."""
    uri = setup.place.run_file(_NONCE)
    try:
        found = files.read_bytes(uri).decode("ascii", "replace")
        if found == setup.nonce:
            _answer(setup)
    except OSError as error:
        yield (
            f"it does not see {setup.place.root} as this machine does ({error}): give a place "
            "that all workers share, as s3://... or a folder mounted everywhere"
        )
    else:
        if found != setup.nonce:
            yield f"what it sees at {setup.place.root} is something else"


def sees_store(setup: Setup) -> bool:
    """Tells if this process sees the same place as the driver."""
    return not list(_unseen_store(setup))


def _answer(setup: Setup) -> None:
    """Lets the driver see that this process is alive, for as long as the run lasts."""
    _ANSWERED_HERE.add(setup.place.run)
    if setup.driver != PROCESS:
        _beat(setup)
        threading.Thread(target=_go_on_beating, args=(setup,), daemon=True).start()


def _beat(setup: Setup) -> None:
    name = f"{socket.gethostname()}-{PROCESS}-{os.getpid()}"
    files.write_atomic(setup.place.run_file(f"{_ANSWERS}/{name}"), setup.nonce.encode())


def _go_on_beating(setup: Setup) -> None:
    while True:
        time.sleep(setup.pulse)
        # A moment's fault of the storage must not end the beats.
        with contextlib.suppress(OSError):
            # At its end a run deletes its folder, and a beat would make it again.
            if not files.exists(setup.place.run_file(_NONCE)):
                return
            _beat(setup)


def signs_of_life(place: Place) -> frozenset[tuple[str, Any]]:
    """Returns a value that changes while a worker of the run is alive, here or elsewhere."""
    here = {("here", time.monotonic())} if place.run in _ANSWERED_HERE else set()
    folder = place.run_file(_ANSWERS)
    answers = files.list_folder(folder) if files.is_folder(folder) else ()
    return frozenset({(entry.name, entry.modified) for entry in answers} | here)


def _weights_problem(backbone: ResolvedBackbone) -> Iterator[str]:
    """Weights elsewhere than on a disk here are checked when they are loaded."""
    try:
        require_runnable(backbone)
    except BackboneError as error:
        yield str(error)
    if backbone.precision == "int8":
        try:
            quantised.require_unchanged(
                backbone.row.name, backbone.quantised_place, backbone.quantised_sha256
            )
        except BackboneError as error:
            yield str(error)
        return
    path, name = backbone.place, backbone.row.name
    if not files.exists(path):
        yield f"the weights of {name} are not at {path}; put them there"
    elif files.is_local(path):
        digest = weights.sha256(path, backbone.kind)
        if digest != backbone.weights_sha256:
            yield f"the weights of {name} at {path} have the sha256 {digest}: they are others"


def _other_arithmetic(setup: Setup) -> Iterator[str]:
    """Compares vectors of a photograph with those of the run's first process, bit for bit.

    Not in float32, whose last bits may differ. Two processors may compute others in bfloat16, with
    and without AMX; and in int8, without AVX2, or where a sum of products overflows.
    """
    for backbone in setup.backbones:
        if backbone.precision == "float32":
            continue
        try:
            own = reference_digest(backbone)
        except BackboneError as error:
            yield str(error)
            continue
        uri = setup.place.run_file(f"{_REFERENCES}/{backbone.short}")
        line = f"{own} {socket.gethostname()}".encode()
        if files.put_if_absent(uri, line):
            continue
        first, _, host = files.read_bytes(uri).decode("utf-8", "replace").partition(" ")
        if first != own:
            yield (
                f"it computes other {backbone.precision} vectors of {backbone.row.name} than "
                f"{host} does: their processors are of different kinds. Run on one kind, or in "
                "float32"
            )


def require_seen(images: Sequence[Image]) -> None:
    """Checks that this process sees the folder of images that the driver has listed.

    Raises:
        WorkerError: not one of `images` is there, nor anything else in the folder of the first.
    """
    if not images or any(files.exists(image.uri) for image in images):
        return
    folder = files.parent(images[0].uri)
    if not files.is_folder(folder) or next(files.list_folder(folder), None) is None:
        raise WorkerError(
            f"{socket.gethostname()}: it does not see the images in {folder}: mount them there "
            "under the same name, or give a place that all workers share"
        )


def unfit(problems: Iterable[str]) -> WorkerError:
    """Returns the error of a run whose workers differ from the driver."""
    return WorkerError(
        f"nothing was committed, since there are workers that are not set up as this machine is. "
        f"{'. '.join(sorted(set(problems)))}. Mend it there (one image for all is the surest), "
        "try it with `beam-flowers check`, then run this again"
    )
