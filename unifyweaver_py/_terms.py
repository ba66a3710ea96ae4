"""Prolog terms as Python values.

========================  ==========================================================
Prolog                    Python
========================  ==========================================================
atom                      ``str``
string                    `PrologString`, a ``str`` that is written back as a string
integer, rational, float  ``int`` (any size), `fractions.Fraction`, ``float``
list, ``[]``              ``list``
dict                      ``dict``; with a tag `TaggedDict`
unbound variable          `Var`
any other compound        `Term`
========================  ==========================================================

Python's ``True`` and ``False`` become the atoms ``true`` and ``false``. ``None``, tuples, bytes
and sets have no Prolog counterpart and are refused with a `TypeError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isinf, isnan
from typing import Any, Final, TypeAlias, Union
from unicodedata import category


class PrologString(str):
    """Text that is a Prolog string; plain ``str`` is an atom. Equal to the same plain text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"PrologString({str.__repr__(self)})"


class TaggedDict(dict[Any, Any]):
    """A Prolog dict that has a tag: ``TaggedDict("point", {"x": 1})`` is ``point{x: 1}``.

    Equal to another one with an equal tag, and to no plain dict.
    """

    __slots__ = ("tag",)
    __hash__ = None

    def __init__(self, tag: Value, items: Mapping[str | int, Value]) -> None:
        super().__init__(items)
        self.tag = tag

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaggedDict) and self.tag == other.tag and dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return f"TaggedDict({self.tag!r}, {dict.__repr__(self)})"

    def __reduce__(self) -> tuple[object, ...]:
        return TaggedDict, (self.tag, dict(self))


@dataclass(frozen=True, slots=True)
class Var:
    """An unbound Prolog variable. Two with one name in one query are one variable."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Term:
    """A compound term: ``Term("step", ("deploy", 3))`` is ``step(deploy, 3)``.

    ``str()`` gives the text that Prolog's ``writeq`` would print. Comparing, hashing and printing
    follow Python's recursion limit; converting to and from Prolog does not.
    """

    name: str
    args: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        if type(self.args) is not tuple:
            object.__setattr__(self, "args", tuple(self.args))

    def __str__(self) -> str:
        return write_term(self)

    def __hash__(self) -> int:
        return hash((self.name, tuple(_hashable(arg) for arg in self.args)))


Value: TypeAlias = Union[
    str, int, float, Fraction, Var, Term, "Sequence[Value]", "Mapping[str | int, Value]"
]


def _hashable(value: object) -> object:
    if isinstance(value, list):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, dict):
        tag = _hashable(value.tag) if isinstance(value, TaggedDict) else None
        return tag, frozenset((key, _hashable(item)) for key, item in value.items())
    return value


_COMPARISONS: Final = "< = =.. =@= =:= =< == =\\= > >= @< @=< @> @>= \\= \\== \\=@= as is >:< :<"
_PRODUCTS: Final = "* / // << >> div mod rdiv rem xor"
_DECLARATIONS: Final = (
    "discontiguous dynamic initialization meta_predicate module_transparent multifile public "
    "table thread_initialization thread_local volatile"
)
# Priority and kind of the operators that a Prolog module starts with.
_INFIX: Final[dict[str, tuple[int, str]]] = {
    **dict.fromkeys((":-", "-->", "=>"), (1200, "xfx")),
    "|": (1105, "xfy"),
    ";": (1100, "xfy"),
    **dict.fromkeys(("->", "*->"), (1050, "xfy")),
    ",": (1000, "xfy"),
    **dict.fromkeys(_COMPARISONS.split(), (700, "xfx")),
    ":": (600, "xfy"),
    **dict.fromkeys(("+", "-", "/\\", "\\/"), (500, "yfx")),
    **dict.fromkeys(_PRODUCTS.split(), (400, "yfx")),
    "**": (200, "xfx"),
    "^": (200, "xfy"),
}
_PREFIX: Final[dict[str, tuple[int, str]]] = {
    **dict.fromkeys((":-", "?-"), (1200, "fx")),
    **dict.fromkeys(_DECLARATIONS.split(), (1150, "fx")),
    "\\+": (900, "fy"),
    **dict.fromkeys(("+", "-", "\\"), (200, "fy")),
    "$": (1, "fx"),
}
# Operators in SWI-Prolog whose priority differs between versions: as atoms they need parentheses.
_OPERATORS: Final = frozenset((*_INFIX, *_PREFIX, ":=", "."))
_SYMBOL_CHARS: Final = frozenset("#$&*+-./:<=>?@^~\\")
_ALONE: Final = frozenset(("{}", ";", "!"))
_HIDDEN: Final = frozenset(("Cc", "Cf", "Zl", "Zp", "Zs"))
_ESCAPES: Final = {
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\v": "\\v",
    "\f": "\\f",
    "\r": "\\r",
}


def write_term(value: Value, priority: int = 1200) -> str:  # noqa: PLR0911 one a type
    """Return the text from which Prolog reads `value` back, as ``writeq`` would print it.

    Operators get the least parentheses that `priority`, the highest one allowed here, permits.
    """
    if isinstance(value, Term):
        return _write_compound(value, priority)
    if isinstance(value, list):
        return _write_list(value)
    if isinstance(value, dict):
        return _write_dict(value)
    if isinstance(value, PrologString):
        return _quote(value, '"')
    if isinstance(value, str):
        return write_atom(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _write_float(value)
    if isinstance(value, Fraction):
        return f"{value.numerator}r{value.denominator}"
    return str(value)


def write_atom(name: str) -> str:
    """Return an atom's text, quoted where Prolog needs it."""
    if name in _ALONE or _is_plain(name):
        return name
    return _quote(name, "'")


def _is_plain(name: str) -> bool:
    if not name:
        return False
    if all(char in _SYMBOL_CHARS for char in name):
        return name != "." and not name.startswith("/*")
    return name.isidentifier() and category(name[0]) in ("Ll", "Lo")


def _quote(text: str, mark: str) -> str:
    return mark + "".join(_escape(char, mark) for char in text) + mark


def _escape(char: str, mark: str) -> str:
    if char == mark:
        return f"\\{char}"
    escaped = _ESCAPES.get(char)
    if escaped is not None:
        return escaped
    hidden = category(char) in _HIDDEN and char != " "
    return f"\\x{ord(char):X}\\" if hidden else char


def _write_float(value: float) -> str:
    if isnan(value):
        return "1.5NaN"
    if isinf(value):
        return "1.0Inf" if value > 0 else "-1.0Inf"
    mantissa, mark, exponent = repr(value).partition("e")
    return (mantissa if "." in mantissa else f"{mantissa}.0") + mark + exponent


def _write_list(items: list[Value]) -> str:
    return "[" + ",".join(write_term(item, 999) for item in items) + "]"


def _write_dict(items: dict[str | int, Value]) -> str:
    pairs = (f"{write_term(key)}:{write_term(value, 599)}" for key, value in items.items())
    tag = write_term(items.tag, 0) if isinstance(items, TaggedDict) else "_"
    return tag + "{" + ",".join(pairs) + "}"


def _write_compound(term: Term, priority: int) -> str:
    match term:
        case Term("[|]", (_, _)):
            return _write_partial_list(term)
        case Term("{}", (arg,)):
            return "{" + write_term(arg) + "}"
        case Term(name, (left, right)) if name in _INFIX:
            return _bracket(_write_infix(name, left, right), _INFIX[name][0], priority)
        case Term(name, (arg,)) if name in _PREFIX:
            return _bracket(_write_prefix(name, arg), _PREFIX[name][0], priority)
        case Term(name, args):
            return f"{write_atom(name)}({','.join(write_term(arg, 999) for arg in args)})"


def _write_partial_list(term: Term) -> str:
    items: list[str] = []
    tail: Value = term
    while isinstance(tail, Term) and tail.name == "[|]" and len(tail.args) == 2:
        item, tail = tail.args
        items.append(write_term(item, 999))
    if isinstance(tail, list):
        return "[" + ",".join([*items, *(write_term(item, 999) for item in tail)]) + "]"
    return f"[{','.join(items)}|{write_term(tail, 999)}]"


def _bracket(text: str, own: int, allowed: int) -> str:
    return f"({text})" if own > allowed else text


def _write_infix(name: str, left: Value, right: Value) -> str:
    priority, kind = _INFIX[name]
    before = _operand(left, priority - (kind[0] == "x"))
    after = _operand(right, priority - (kind[2] == "x"))
    if name == ",":
        return f"{before},{after}"
    operator = name if name == "|" else write_atom(name)
    if name.isalpha():
        return f"{before} {operator} {after}"
    return _beside(_beside(before, operator), after)


def _write_prefix(name: str, arg: Value) -> str:
    priority, kind = _PREFIX[name]
    text = _operand(arg, priority - (kind[1] == "x"))
    operator = write_atom(name)
    apart = text[0] in "({" or (name in "+-" and text[0].isdigit())
    return f"{operator} {text}" if apart else _beside(operator, text)


def _operand(value: Value, priority: int) -> str:
    if isinstance(value, str) and not isinstance(value, PrologString) and value in _OPERATORS:
        return f"({write_atom(value)})"
    return write_term(value, priority)


def _beside(left: str, right: str) -> str:
    """Join two tokens, apart where they would be read as one."""
    return f"{left} {right}" if _class_of(left[-1]) == _class_of(right[0]) else left + right


def _class_of(char: str) -> object:
    if char in _SYMBOL_CHARS:
        return "symbol"
    return "word" if char.isalnum() or char == "_" else object()
