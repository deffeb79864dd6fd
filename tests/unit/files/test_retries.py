"""Asking a server that is busy or away: what is tried again, for how long, and what is said."""

import time

import pytest

from beam_flowers.errors import UnreachableError
from beam_flowers.files.retries import Retries


class BusyError(Exception):
    pass


def server(answers, alive=True, **patience):
    """(Retries, request): the request gives or raises each answer in turn, then the last ever."""
    queue = list(answers)

    def request():
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def is_passing(error):
        return isinstance(error, BusyError)

    return Retries("http://s3", is_passing, str, lambda: alive, **patience), request


def test_what_passes_is_asked_again_and_said(caplog):
    retries, request = server([BusyError("503"), BusyError("503"), "answer"])
    assert retries.ask("s3://b/a", request) == "answer"
    (said,) = caplog.messages
    assert said.startswith("s3://b/a: 503; trying again for up to 15 seconds")


def test_what_does_not_pass_is_asked_once():
    retries, request = server([KeyError("404"), "never"])
    with pytest.raises(KeyError):
        retries.ask("s3://b/a", request)
    assert request() == "never"


def test_silence_ends_and_the_others_do_not_wait_as_long():
    retries, request = server([BusyError("reset")], alive=False, first_patience=0.6)
    with pytest.raises(UnreachableError, match=r"http://s3 has not answered.*s3://b/a: reset"):
        retries.ask("s3://b/a", request)
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(UnreachableError, match="has not answered"):
            retries.ask("s3://b/b", request)
    assert time.monotonic() - began < 0.5


def test_one_thing_that_is_never_answered_is_an_error_of_that_thing():
    retries, request = server([BusyError("500")], alive=True, first_patience=0.6)
    with pytest.raises(OSError, match=r"500.*s3://b/a"):
        retries.ask("s3://b/a", request)
    assert retries.ask("s3://b/b", lambda: 1) == 1


def test_patience_grows_with_the_first_answer(caplog):
    retries, request = server(["answer", BusyError("503"), "answer"])
    retries.ask("a", request)
    retries.ask("a", request)
    assert "for up to 120 seconds" in caplog.text
