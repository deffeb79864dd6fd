"""Images that end the process which decodes them, for real, and decoders that obey them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import make_images
import pytest

from beam_flowers.backbones import decoders

# Runs in every Python that starts with it on its path: in decoder processes, not in the tests'
# own. So the product needs no hook.
_SITECUSTOMIZE = r"""
import ctypes, os, re, signal, time
from PIL import ImageFile

load = ImageFile.ImageFile.load

def obey(self):
    data = self.fp.getvalue()[:400] if self.fp else b""  # Once it is loaded there is no file.
    found = re.search(rb"DECODER:(\w+):?([^\xff]*)", data)
    what, where = found.groups() if found else (b"", b"")
    if what == b"segv" or what == b"segv_once" and not os.path.exists(where):
        if where:
            open(where, "w").close()
        ctypes.string_at(0)
    elif what == b"abort":
        os.abort()
    elif what == b"exit":
        os._exit(1)
    elif what == b"kill" or what == b"kill_once" and not os.path.exists(where):
        if where:
            open(where, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == b"memory":
        raise MemoryError
    while what == b"spin":
        pass
    return load(self)

ImageFile.ImageFile.load = obey
"""


def deadly(what: str, where: Path | str = "", seed: int = 0) -> bytes:
    """A sound JPEG whose comment tells obedient decoders what to do.

    Args:
        what: `segv`, `abort`, `exit`, `kill`, `memory` or `spin`; `segv_once` and `kill_once` do
            it only if there is no file `where`, and make it.
        where: of that file.
        seed: of the image.
    """
    comment = f"DECODER:{what}:{where}".encode()
    sound = make_images.jpeg(seed=seed)
    return sound[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + sound[2:]


@pytest.fixture
def obedient(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Has decoder processes started that obey, in this process and in those that it starts."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    own_decoders(monkeypatch)
    yield
    while _lent:
        _lent.pop().end()


_lent: list[decoders._Decoders] = []


def own_decoders(patch: pytest.MonkeyPatch) -> None:
    """Has the test decode in processes of its own, which `obedient` ends."""
    _lent.append(decoders._Decoders())
    patch.setattr(decoders, "_decoders", _lent[-1])
