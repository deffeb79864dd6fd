"""The scheduler that the embed job and `ComputeEmbeddings` share."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from beam_flowers.transforms.start_ahead import StartAhead


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_results_come_in_order_as_soon_as_enough_is_started(ahead, count):
    finished, found, work = [], [], StartAhead(lambda n: finished.append(n) or -n, ahead)
    for number in range(count):
        found += work.add(number)
        assert len(found) == max(0, number + 1 - ahead)
    assert finished == [-n for n in found]
    found += work.rest()
    assert found == [-n for n in range(count)]
    assert list(work.rest()) == []


def test_the_next_piece_is_started_before_the_last_one_is_awaited():
    """With `ahead` 0 this would wait for ever: the first piece ends when the second has begun."""
    second_began = Event()
    with ThreadPoolExecutor(2) as pool:
        work = StartAhead(lambda task: task.result(10))
        assert list(work.add(pool.submit(second_began.wait, 10))) == []
        assert list(work.add(pool.submit(second_began.set))) == [True]
        assert list(work.rest()) == [None]


def test_what_fails_is_raised_where_it_is_awaited_and_the_rest_goes_on():
    work = StartAhead(lambda n: 1 // n)
    assert list(work.add(0)) == []
    with pytest.raises(ZeroDivisionError):
        list(work.add(1))
    assert list(work.rest()) == [1]
