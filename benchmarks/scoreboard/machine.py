"""The machine: what it is, and the most that its processor could do."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from beam_flowers.backbones import hardware

_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_PACKAGES = (
    "apache-beam",
    "tensorflow",
    "keras",
    "openvino",
    "numpy",
    "pyarrow",
    "pillow",
    "scipy",
)


def name() -> str:
    """The processor with its cores and the flags that matter."""
    text = Path("/proc/cpuinfo").read_text()
    model = next((li.partition(": ")[2] for li in text.splitlines() if "model name" in li), "?")
    flags = " ".join(flag for flag in _FLAGS if flag in hardware.flags())
    return f"{model}, {os.cpu_count()} cores, {flags}"


def describe() -> dict[str, str]:
    """The machine and the versions, by what each line is called."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in _PACKAGES)
    return {
        "processor": name(),
        "memory": f"{memory:.0f} GiB",
        "system": platform.platform(),
        "Python": platform.python_version(),
        "packages": versions,
        "load before the first run": f"{os.getloadavg()[0]:.1f}",
    }


def commit() -> str:
    """The checkout's commit, with a mark where files were changed since."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def peak_command(work: Path) -> list[str]:
    """Compiles the microbenchmark for this processor; the command that runs it on all cores."""
    program = work / "fma"
    source = Path(__file__).parent / "fma.c"
    subprocess.run(
        ["cc", "-O2", "-march=native", "-pthread", str(source), "-o", str(program)], check=True
    )
    return [str(program), str(os.cpu_count())]


def environment(work: Path, peer: str) -> str:
    """A peer's own Python, made with its requirements if it is not there."""
    if peer == "own":
        return sys.executable
    folder = work / "environments" / peer
    python = str(folder / "bin" / "python")
    if not (folder / "ready").exists():
        print(f"making the environment of {peer}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        wanted = Path(__file__).parent / "requirements" / f"{peer}.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(wanted)], check=True)
        (folder / "ready").touch()
    return python


def call(command: list[str]) -> None:
    """Runs a command that prepares something; what it says is seen only if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
