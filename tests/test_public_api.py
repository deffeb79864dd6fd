"""The public API: all that its signatures name is public too, and typed examples pass mypy."""

import inspect
import typing

import numpy as np
import numpy.typing as npt
import pytest

import beam_flowers

PUBLIC = {name: getattr(beam_flowers, name) for name in beam_flowers.__all__}


def types_in(hint):
    """All classes of a type hint."""
    found = {hint} if isinstance(hint, type) else set()
    for argument in typing.get_args(hint):
        for one in argument if isinstance(argument, list) else [argument]:
            found |= types_in(one)
    return found


def functions_of(value):
    """A function, or a class with its public methods and properties."""
    yield value
    if inspect.isclass(value):
        for name, member in inspect.getmembers(value):
            if isinstance(member, property) and not name.startswith("_"):
                yield member.fget
            elif inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
                yield member


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_what_a_public_signature_names_is_public(name):
    hidden = set()
    for function in functions_of(PUBLIC[name]):
        if getattr(function, "__module__", "").startswith("beam_flowers"):
            # What modules import for type checkers alone.
            hints = typing.get_type_hints(function, localns={"np": np, "npt": npt})
            hidden |= {
                found
                for hint in hints.values()
                for found in types_in(hint)
                if found.__module__.startswith("beam_flowers") and found not in PUBLIC.values()
            }
    assert not hidden


def test_errors_that_a_user_can_mend_have_one_base():
    errors = [v for v in PUBLIC.values() if inspect.isclass(v) and issubclass(v, BaseException)]
    assert len(errors) > 10
    assert all(issubclass(error, beam_flowers.BeamFlowersError) for error in errors)
    with pytest.raises(beam_flowers.BeamFlowersError, match="no store"):
        beam_flowers.open_dataset("/nowhere/at/all")
