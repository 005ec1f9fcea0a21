"""Plain values of YAML and JSON against the types of a dataclass's fields."""

import reprlib
import sys
import types
import typing
from typing import Any, Literal

LARGEST = sys.float_info.max

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother, _repr.maxlong = 2, 80, 80, 80


def brief(value: Any) -> str:
    """`value` in a message: of a few words, however much a file makes of it."""
    return _repr.repr(value)


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain (YAML, JSON) `value` may stand for the type `hint`; a bool is no number."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _worded(value, hint) in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, member) for member in typing.get_args(hint))
    if origin is tuple:
        return isinstance(value, list | tuple) and all(fits(item, typing.get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def converted(value: Any, hint: Any) -> Any:
    """`value`, which `fits`, as the type itself: a list as a tuple, a whole number as a float where one is meant."""
    if isinstance(value, list):
        return tuple(value)
    if typing.get_origin(hint) is Literal:
        return _worded(value, hint)
    return float(value) if hint is float or (isinstance(value, int) and hint == float | None) else value


def _worded(value: Any, hint: Any) -> Any:
    """The choice that `value` stands for: YAML reads the words on and off, where nobody quotes them, as true and false."""
    word = {True: "on", False: "off"}.get(value) if isinstance(value, bool) else None
    return word if word in typing.get_args(hint) else value


def type_name(hint: Any) -> str:
    """A type in a user's words."""
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if name := getattr(hint, "__name__", None):
        return name
    words = str(hint).replace("tuple[int, ...]", "a list of whole numbers")
    return words.replace("tuple[str, ...]", "a list of words")
