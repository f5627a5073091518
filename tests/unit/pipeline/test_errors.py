import inspect
import pickle
import re
from typing import Any

import pytest

from pipeline import errors
from pipeline.errors import InvalidValue, MurmurationError, Unavailable


def family(root: type[MurmurationError]) -> list[type[MurmurationError]]:
    return [root, *(member for child in root.__subclasses__() for member in family(child))]


ERRORS = [error for error in family(MurmurationError) if error.__module__ == errors.__name__]

ARGUMENTS: dict[type[MurmurationError], tuple[Any, ...]] = {
    InvalidValue: ("That can't be.", "beam_size"),
    Unavailable: ("Not now.", 17),
}


def made(error: type[MurmurationError]) -> MurmurationError:
    """Make an instance with every argument given."""
    for base, arguments in ARGUMENTS.items():
        if issubclass(error, base):
            return error(*arguments)
    return error("It went wrong.")


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_survives_pickling_with_all_it_knows(error: type[MurmurationError]) -> None:
    before = made(error)

    after = pickle.loads(pickle.dumps(before))

    assert type(after) is error
    assert vars(after) == vars(before)
    assert str(after) == before.message
    assert after.args == before.args


def test_several_wrong_fields_survive_pickling() -> None:
    problems = (("beam_size", "Too many."), ("language", "No such."))

    after = pickle.loads(pickle.dumps(InvalidValue("Two fields are wrong.", "beam_size", problems)))

    assert (after.field, after.problems) == ("beam_size", problems)


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_can_be_made_from_its_sentence_alone(error: type[MurmurationError]) -> None:
    assert str(error("It went wrong.")) == "It went wrong."


def test_codes_are_unique_and_stable_names() -> None:
    codes = [error.code for error in ERRORS]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_says_what_it_means(error: type[MurmurationError]) -> None:
    assert "code" in vars(error)
    assert (error.__doc__ or "").strip()


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"^ +[│├└─ ]*?(\w+)", (errors.__doc__ or "").partition("::")[2], re.MULTILINE)
    tree = [name for name in drawn if name in dir(errors)]

    assert sorted(tree) == sorted(error.__name__ for error in ERRORS)
    assert {name for name, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)} == set(
        tree
    )
