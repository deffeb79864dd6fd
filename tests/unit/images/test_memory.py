"""How much memory may be used, and who may use it when."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from beam_flowers.errors import ImageError
from beam_flowers.images.memory_gate import Gate, memory_limit

MIB = 2**20
HUGE = 9223372036854771712
"""What version 1 says where there is no limit."""


def test_of_several_only_those_within_the_budget_run_at_a_time() -> None:
    gate, lock = Gate(400 * MIB), threading.Lock()
    running: list[int] = []
    seen: list[int] = []

    def decode(needed: int) -> None:
        with gate.hold(needed, "PNG"):
            with lock:
                running.append(needed)
                seen.append(sum(running))
                assert sum(running) <= gate.budget or len(running) == 1
            time.sleep(0.002)
            with lock:
                running.remove(needed)

    sizes = [n * MIB for n in (10, 30, 50, 150, 90, 100, 200, 1) * 8]
    threads = [threading.Thread(target=decode, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(sizes)
    assert max(seen) == 200 * MIB


def test_a_large_image_is_not_overtaken() -> None:
    gate, order = Gate(400), []
    started = threading.Event()

    def decode(name: str, needed: int) -> None:
        started.set()
        with gate.hold(needed, "PNG"):
            order.append(name)

    with gate.hold(1, "PNG"):
        large = threading.Thread(target=decode, args=("large", 200))
        large.start()
        started.wait()
        time.sleep(0.05)
        small = threading.Thread(target=decode, args=("small", 1))
        small.start()
        time.sleep(0.05)
        assert order == []
    large.join()
    small.join()
    assert order == ["large", "small"]


def test_what_needs_more_than_half_is_refused_with_both_sizes() -> None:
    gate = Gate(400 * MIB)
    with gate.hold(200 * MIB, "PNG of 1 x 1 pixels"):
        pass
    with (
        pytest.raises(ImageError, match="TooMuchMemory: PNG of 1 x 1 pixels") as raised,
        gate.hold(200 * MIB + 1, "PNG of 1 x 1 pixels"),
    ):
        pass
    assert "200 MiB" in raised.value.message
    assert "limit of 400 MiB" in raised.value.message


def test_a_image_that_fails_gives_back_what_it_held() -> None:
    gate = Gate(400)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate.hold(200, "PNG"):
            1 / 0  # noqa: B018


def machine(root: Path, cgroup: str, files: dict[str, object]) -> str:
    for name, content in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return str(root)


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/a/b", {"a/b/memory.max": 300, "a/memory.max": 500}, 300),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": 500}, 500),
        ("0::/", {"memory.max": 700}, 700),
        ("0::/not/here", {"memory.max": 700}, 700),
        ("1:cpu:/\n4:memory:/a", {"memory/a/memory.limit_in_bytes": 300}, 300),
        ("4:memory:/host", {"memory/memory.limit_in_bytes": 400}, 400),
        ("4:memory:/a\n0::/", {"memory/a/memory.limit_in_bytes": HUGE}, None),
        ("0::/a", {"a/memory.max": "max"}, None),
        ("", {}, None),
    ],
)
def test_the_limit_is_the_lowest_of_the_cgroups(
    tmp_path: Path, cgroup: str, files: dict[str, object], expected: int | None
) -> None:
    there = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    limit = memory_limit(machine(tmp_path, cgroup, there))
    if expected is None:
        assert limit > 100 * MIB
    else:
        assert limit == expected


def test_without_linux_it_is_the_memory_of_the_machine(tmp_path: Path) -> None:
    assert memory_limit(str(tmp_path)) > 100 * MIB
    assert memory_limit(str(tmp_path)) >= memory_limit()
