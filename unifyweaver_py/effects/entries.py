"""Terms as JSON text and back, exactly: what the journal keeps.

An atom is a JSON string, a list a list, a whole number or a float a number. Everything else is an
object with one key that says what it is: `{"string": text}`, `{"term": [name, argument, ...]}`,
`{"rational": [numerator, denominator]}`, `{"variable": name}` or `{"dict": [tag, [key, value],
...]}`, the tag None where there is none.
"""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

from unifyweaver_py._terms import PrologString, TaggedDict, Term, Value, Var


def written(value: Value) -> str:
    """Return the text of a term: ASCII, on one line."""
    return json.dumps(_plain(value), separators=(",", ":"))


def read(text: str) -> Value:
    """Return the term of a text. Raises `ValueError` for what `written` never writes."""
    return _value(json.loads(text))


def _plain(value: Any) -> Any:  # noqa: PLR0911 one a type
    match value:
        case PrologString():
            return {"string": str(value)}
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return value
        case list() | tuple():
            return [_plain(item) for item in value]
        case Term(name, args):
            return {"term": [name, *map(_plain, args)]}
        case Fraction():
            return {"rational": [value.numerator, value.denominator]}
        case Var(name):
            return {"variable": name}
        case dict():
            tag = _plain(value.tag) if isinstance(value, TaggedDict) else None
            return {"dict": [tag, *([key, _plain(item)] for key, item in value.items())]}
    raise TypeError(f"not a term: {value!r}")


def _value(plain: Any) -> Value:  # noqa: PLR0911 one a type
    match plain:
        case str() | int() | float():
            return plain
        case list():
            return [_value(item) for item in plain]
        case {"string": text}:
            return PrologString(text)
        case {"term": [name, *args]}:
            return Term(name, tuple(map(_value, args)))
        case {"rational": [numerator, denominator]}:
            return Fraction(numerator, denominator)
        case {"variable": name}:
            return Var(name)
        case {"dict": [tag, *pairs]}:
            items = {key: _value(item) for key, item in pairs}
            return items if tag is None else TaggedDict(_value(tag), items)
    raise ValueError(f"not a term: {plain!r}")
