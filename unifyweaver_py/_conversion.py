"""Terms to Python values and back, through the C interface, whatever their depth.

Both directions walk with an explicit stack and two term references a level, so that neither
Python's recursion limit nor the number of elements matters.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from typing import Any, Final, TypeAlias

from unifyweaver_py import _clib
from unifyweaver_py._clib import (
    ATOM,
    COMPOUND,
    CVT_ATOM,
    CVT_STRING,
    CVT_VARIABLE,
    CVT_WRITE,
    DICT,
    INTEGER,
    LIST_PAIR,
    REP_UTF8,
    STRING,
    CLib,
    TermValue,
)
from unifyweaver_py._errors import ConversionError
from unifyweaver_py._terms import PrologString, TaggedDict, Term, Value, Var

_CACHED_NAMES: Final = 4096
_CACHED_LENGTH: Final = 256
_CONSTANT_LENGTH: Final = 32
_LEAVING: Final = 64
_INT64: Final = 1 << 63
_SMALL_KEY: Final = 1 << 56  # what a dict of 9.0 can have as a key
_PART_BYTES: Final = 512  # Prolog takes quadratic time to read digits
_TEXT: Final = CVT_ATOM | CVT_STRING | REP_UTF8
_COMPOUNDS: Final = frozenset((COMPOUND, LIST_PAIR, DICT))
_NESTED: Final = object()
_DONE: Final = object()

Variables: TypeAlias = dict[Any, Any]


class PendingError(Exception):
    """Prolog raised while a term was made or read, for want of memory.

    Attributes:
        record: the record of what it raised.
    """

    def __init__(self, record: int) -> None:
        super().__init__(record)
        self.record = record


class _Scratch:
    """Buffers that one call into the C interface fills; never shared by two threads at a time."""

    __slots__ = ("length", "length_at", "mark", "mark_at", "text", "text_at", "value", "value_at")

    def __init__(self) -> None:
        self.value = TermValue()
        self.value_at = ctypes.byref(self.value)
        self.length = ctypes.c_size_t()
        self.length_at = ctypes.addressof(self.length)
        self.mark = ctypes.c_size_t()
        self.mark_at = ctypes.byref(self.mark)
        self.text = ctypes.c_void_p()
        self.text_at = ctypes.addressof(self.text)


class Converter:
    """Reads and writes terms of the Prolog engine that is current on this thread.

    The caller holds a foreign frame, whose end frees the term references made here.
    """

    def __init__(self, clib: CLib) -> None:
        self.clib = clib
        self._spare: list[_Scratch] = []
        self._names: dict[int, str] = {}
        self._handles: dict[str, int] = {}
        self._noticed: set[str] = set()
        # A thread may have looked up a handle that another one drops: these stay a while longer.
        self._leaving: deque[int] = deque()
        self._functors: dict[tuple[str, int], int] = {}
        self._anonymous = count(1)
        self._true, self._false = self.constant("true"), self.constant("false")
        self._hexadecimal = clib.predicate(b"hexadecimal", 2, b"deployment_engine")
        self._quotient = clib.predicate(b"quotient", 3, b"deployment_engine")
        self._assemble = clib.predicate(b"assemble", 3, b"deployment_engine")
        self._dict_create = clib.predicate(b"dict_create", 3, b"system")

    def constant(self, name: str) -> int:
        """Return the handle of an atom that is kept for the life of the process."""
        data = encode(name)
        return int(self.clib.new_atom(REP_UTF8, len(data), data))

    def new_terms(self, number: int) -> int:
        """Return the first of some new term references.

        Raises:
            PendingError: the stacks are full.
        """
        terms: int = self.clib.new_terms(number)
        if not terms:
            raise self.pending()
        return terms

    def pending(self) -> PendingError:
        """Return what Prolog has just raised, and have Prolog forget it."""
        clib = self.clib
        raised = clib.exception(0)
        if not raised:
            raise ConversionError("Prolog could not convert a value")
        record = int(clib.record(raised))
        clib.clear_exception()
        return PendingError(record)

    def functor(self, name: str, arity: int) -> int:
        """Return the handle of a functor."""
        functor = self._functors.get((name, arity))
        if functor is None:
            if len(self._functors) >= _CACHED_NAMES:
                self._functors.clear()
            atom = self.constant(name)
            functor = int(self.clib.new_functor(atom, arity))
            self.clib.release_atom(atom)
            self._functors[(name, arity)] = functor
        return functor

    # Reading

    def read(self, term: int, variables: Variables | None = None) -> Value:
        """Return the value of a term. Equal variables of one `variables` table stay equal.

        Raises:
            ConversionError: the term is cyclic, or holds a stream or another blob.
            PendingError: the stacks are full.
        """
        spare = self._spare
        scratch = spare.pop() if spare else _Scratch()
        value = self._read_leaf(term, scratch, variables)
        if value is _NESTED:
            if not self.clib.is_acyclic(term):
                raise ConversionError("a cyclic term has no Python value")
            value = self._read_nested(term, scratch, {} if variables is None else variables)
        spare.append(scratch)
        return value  # type: ignore[no-any-return]

    def _read_leaf(self, term: int, scratch: _Scratch, variables: Variables | None) -> Any:
        kind = self.clib.term_type(term)
        if kind == ATOM:
            self.clib.term_value(term, scratch.value_at)
            name = self._names.get(scratch.value.atom)
            return self._read_name(term, scratch) if name is None else name
        if kind == INTEGER:
            if self.clib.get_int64(term, scratch.value_at):
                return scratch.value.integer
            return self._read_big_number(term, scratch)
        if kind in _COMPOUNDS:
            return _NESTED
        return self._read_rare(kind, term, scratch, {} if variables is None else variables)

    def _read_rare(self, kind: int, term: int, scratch: _Scratch, variables: Variables) -> Value:
        match kind:
            case _clib.STRING:
                return PrologString(self._text(term, scratch, _TEXT))
            case _clib.NIL:
                return []
            case _clib.FLOAT:
                self.clib.term_value(term, scratch.value_at)
                return float(scratch.value.number)
            case _clib.VARIABLE:
                return self._read_variable(term, scratch, variables)
            case _clib.RATIONAL:
                return self._read_big_number(term, scratch)
            case _:
                raise ConversionError("a stream or another blob has no Python value")

    def _read_name(self, term: int, scratch: _Scratch) -> str:
        atom = scratch.value.atom
        name = self._text(term, scratch, _TEXT)
        if len(name) <= _CACHED_LENGTH and self._seen_before(name):
            self._remember(atom, name)
        return name

    def _seen_before(self, name: str) -> bool:
        """Return whether it is worth keeping: most atoms are seen once, and constants often."""
        if name in self._noticed:
            self._noticed.discard(name)
            return True
        if len(self._noticed) >= _CACHED_NAMES:
            self._noticed.clear()
        self._noticed.add(name)
        return False

    def _remember(self, atom: int, name: str) -> None:
        # A handle is used again once its atom is gone, so the table keeps the atoms it names.
        if len(self._names) >= _CACHED_NAMES:
            oldest = next(iter(self._names), None)
            if oldest is not None and (old := self._names.pop(oldest, None)) is not None:
                self._handles.pop(old, None)
                self._leaving.append(oldest)
        if len(self._leaving) > _LEAVING:
            self.clib.release_atom(self._leaving.popleft())
        self.clib.keep_atom(atom)
        if self._names.setdefault(atom, name) is not name:
            self.clib.release_atom(atom)
        else:
            self._handles[name] = atom

    def _text(self, term: int, scratch: _Scratch, flags: int) -> str:
        clib = self.clib
        clib.mark_buffers(scratch.mark_at)  # else the copy made below is kept for ever
        try:
            if not clib.get_text(term, scratch.length_at, scratch.text_at, flags):
                clib.clear_exception()
                raise ConversionError("text that can't be represented in UTF-8")
            data = ctypes.string_at(scratch.text.value or 0, scratch.length.value)
        finally:
            clib.release_buffers(scratch.mark)
        return data.decode("utf-8", "surrogatepass")

    def _read_variable(self, term: int, scratch: _Scratch, variables: Variables) -> Var:
        place = self._text(term, scratch, CVT_VARIABLE | CVT_WRITE | REP_UTF8)
        variable: Var | None = variables.get(place)
        if variable is None:
            variable = variables[place] = Var(f"_G{next(self._anonymous)}")
        return variable

    def _read_big_number(self, term: int, scratch: _Scratch) -> int | Fraction:
        args = self.new_terms(2)
        self.clib.put_term(args, term)
        self._call(self._hexadecimal, args)
        over, _, under = self._text(args + 1, scratch, _TEXT).partition("/")
        return Fraction(int(over, 16), int(under, 16)) if under else int(over, 16)

    def _read_nested(self, root: int, scratch: _Scratch, variables: Variables) -> Any:
        levels = _Levels(self)
        waiting: list[_Reading] = []
        reading = self._open(root, scratch, levels.at(0))
        while True:
            child = reading.step(self.clib)
            if child:
                value = self._read_leaf(child, scratch, variables)
                if value is _NESTED:
                    waiting.append(reading)
                    reading = self._open(child, scratch, levels.at(len(waiting)))
                else:
                    reading.values.append(value)
                continue
            value = reading.value()
            if not waiting:
                return value
            reading = waiting.pop()
            reading.values.append(value)

    def _open(self, term: int, scratch: _Scratch, level: int) -> _Reading:
        clib = self.clib
        kind = clib.term_type(term)
        if kind == LIST_PAIR:
            clib.put_term(level, term)
            return _List(level)
        clib.term_value(term, scratch.value_at)
        name_atom, arity = scratch.value.compound
        clib.put_term(level, term)
        if kind == DICT:
            return _Dict(level, arity)
        name = self._names.get(name_atom)
        if name is None:
            clib.put_atom(level + 1, name_atom)
            clib.term_value(level + 1, scratch.value_at)
            name = self._read_name(level + 1, scratch)
        return _Compound(level, arity, name)

    # Writing

    def unify(self, term: int, value: Value, variables: Variables) -> bool:
        """Unify a term with a value. `variables` maps each `Var` to its term reference.

        False may also mean that Prolog has raised.

        Raises:
            TypeError: the value, or one inside it, has no Prolog counterpart.
            ConversionError: the value holds itself, or a dict has a key that Prolog's can't have.
            PendingError: Prolog has raised.
        """
        if type(value) is str:
            handle = self._handles.get(value)
            if handle is not None:
                return self.clib.unify_atom(term, handle)  # type: ignore[no-any-return]
        done = self._write_leaf(term, value, variables)
        return self._write_nested(term, value, variables) if done is _NESTED else done

    def _write_leaf(self, term: int, value: Any, variables: Variables) -> Any:
        clib = self.clib
        if isinstance(value, str):
            return self._write_text(term, value)
        if isinstance(value, bool):
            return bool(clib.unify_atom(term, self._true if value else self._false))
        if isinstance(value, int):
            return self._write_integer(term, value)
        if isinstance(value, Term | dict) or (isinstance(value, list) and value):
            return _NESTED
        return self._write_rare(term, value, variables)

    def _write_rare(self, term: int, value: Any, variables: Variables) -> bool:
        match value:
            case list():
                return bool(self.clib.unify_nil(term))
            case float():
                return bool(self.clib.unify_float(term, value))
            case Var():
                return self._write_variable(term, value, variables)
            case Fraction():
                return self._write_fraction(term, value)
            case _:
                kind = type(value).__name__
                raise TypeError(f"{kind} has no Prolog counterpart: {value!r:.80}")

    def _write_text(self, term: int, value: str) -> bool:
        clib = self.clib
        if isinstance(value, PrologString):
            data = encode(value)
            return bool(clib.unify_text(term, STRING | REP_UTF8, len(data), data))
        handle = self._handles.get(value)
        if handle is not None:
            return bool(clib.unify_atom(term, handle))
        data = encode(value)
        done = bool(clib.unify_text(term, ATOM | REP_UTF8, len(data), data))
        if len(data) <= _CONSTANT_LENGTH and self._seen_before(value):
            atom = self.constant(value)
            self._remember(atom, value)
            self.clib.release_atom(atom)
        return done

    def _write_integer(self, term: int, value: int) -> bool:
        if -_INT64 <= value < _INT64:
            return bool(self.clib.unify_int64(term, value))
        number = self.new_terms(1)
        self._put_integer(number, value)
        return bool(self.clib.unify(term, number))

    def _put_integer(self, term: int, value: int) -> None:
        if value.bit_length() > 8 * _PART_BYTES:
            self._put_parts(term, value)
            return
        data = f"{value:#x}".encode()
        if not self.clib.put_from_text(term, REP_UTF8, len(data), data):
            raise self.pending()

    def _put_parts(self, term: int, value: int) -> None:
        size = value.bit_length() // 8 + 1
        data = abs(value).to_bytes(size, "little")
        parts = [
            int.from_bytes(data[at : at + _PART_BYTES], "little")
            for at in range(0, size, _PART_BYTES)
        ]
        args = self.new_terms(3)
        if not (
            self.unify(args, parts, {})
            and self.unify(args + 1, -8 * _PART_BYTES if value < 0 else 8 * _PART_BYTES, {})
        ):
            raise self.pending()
        self._call(self._assemble, args)
        self.clib.put_term(term, args + 2)

    def _write_variable(self, term: int, variable: Var, variables: Variables) -> bool:
        known = variables.get(variable)
        if known is None:
            variables[variable] = self.clib.copy_term(term)
            return True
        return bool(self.clib.unify(term, known))

    def _write_fraction(self, term: int, value: Fraction) -> bool:
        args = self.new_terms(3)
        self._put_integer(args, value.numerator)
        self._put_integer(args + 1, value.denominator)
        self._call(self._quotient, args)
        return bool(self.clib.unify(term, args + 2))

    def _write_nested(self, term: int, root: Any, variables: Variables) -> bool:
        levels = _Levels(self)
        waiting: list[_Writing] = []
        inside = {id(root)}
        writing = self._begin(term, root, levels.at(0))
        while writing.begun:
            child = writing.step(self.clib)
            if child is _DONE:
                if not writing.finish(self):
                    return False
                if not waiting:
                    return True
                inside.discard(id(writing.value))
                writing = waiting.pop()
                continue
            done = self._write_leaf(writing.place, child, variables)
            if done is _NESTED:
                if id(child) in inside:
                    raise ConversionError("a value that holds itself has no Prolog counterpart")
                inside.add(id(child))
                waiting.append(writing)
                writing = self._begin(writing.place, child, levels.at(len(waiting)))
            elif not done:
                return False
        return False

    def _begin(self, term: int, value: Any, level: int) -> _Writing:
        if isinstance(value, list):
            return _WritingList(self.clib, term, value, level)
        if isinstance(value, dict):
            return _WritingDict(self, term, value)
        functor = self.functor(value.name, len(value.args))
        return _WritingCompound(self.clib, term, value, level, functor)

    def make_dict(self, term: int, args: int) -> bool:
        """Unify a term with the dict that the arguments of dict_create/3 describe."""
        self._call(self._dict_create, args)
        return bool(self.clib.unify(term, args))

    def _call(self, predicate: int, args: int) -> None:
        if not self.clib.call_quick(None, 0x0004 | 0x0010, predicate, args):
            raise self.pending()


class _Levels:
    """Two term references for each level of nesting, made once and used again by its siblings."""

    def __init__(self, converter: Converter) -> None:
        self._converter = converter
        self._levels: list[int] = []

    def at(self, depth: int) -> int:
        while len(self._levels) <= depth:
            self._levels.append(self._converter.new_terms(2))
        return self._levels[depth]


class _Reading:
    """A compound of which some arguments have been read; `step` gives the next one to read."""

    __slots__ = ("child", "values")

    def __init__(self, level: int) -> None:
        self.child = level + 1
        self.values: list[Any] = []

    def step(self, clib: CLib) -> int:
        raise NotImplementedError

    def value(self) -> Any:
        raise NotImplementedError


class _List(_Reading):
    __slots__ = ("partial", "tail")

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.tail = level
        self.partial = False

    def step(self, clib: CLib) -> int:
        if self.partial:
            return 0
        if clib.get_list(self.tail, self.child, self.tail):
            return self.child
        self.partial = not clib.get_nil(self.tail)
        return self.tail if self.partial else 0

    def value(self) -> Any:
        if not self.partial:
            return self.values
        result = self.values.pop()
        while self.values:
            result = Term("[|]", (self.values.pop(), result))
        return result


class _Compound(_Reading):
    __slots__ = ("arity", "index", "name", "term")

    def __init__(self, level: int, arity: int, name: str) -> None:
        super().__init__(level)
        self.term = level
        self.arity = arity
        self.index = 0
        self.name = name

    def step(self, clib: CLib) -> int:
        if self.index == self.arity:
            return 0
        self.index += 1
        clib.get_arg(self.index, self.term, self.child)
        return self.child

    def value(self) -> Any:
        return Term(self.name, tuple(self.values))


class _Dict(_Compound):
    """A dict is a compound of its tag and then a value and its key, for each key."""

    __slots__ = ()

    def __init__(self, level: int, arity: int) -> None:
        super().__init__(level, arity, "dict")

    def value(self) -> Any:
        tag, *rest = self.values
        items = dict(zip(rest[1::2], rest[::2], strict=True))
        return items if isinstance(tag, Var) else TaggedDict(tag, items)


class _Writing:
    """A value of which some parts have been written.

    `step` gives the next part; it belongs at the term reference `place`.
    """

    __slots__ = ("begun", "place", "value", "values")

    def __init__(self, value: Any, place: int, values: Iterator[Any], begun: bool) -> None:
        self.value = value
        self.place = place
        self.values = values
        self.begun = begun

    def step(self, _clib: CLib) -> Any:
        return next(self.values, _DONE)

    def finish(self, _converter: Converter) -> bool:
        return True


class _WritingList(_Writing):
    __slots__ = ("tail",)

    def __init__(self, clib: CLib, term: int, values: list[Any], level: int) -> None:
        super().__init__(values, level + 1, iter(values), True)
        self.tail = level
        clib.put_term(level, term)

    def step(self, clib: CLib) -> Any:
        value = next(self.values, _DONE)
        if value is not _DONE:
            self.begun = bool(clib.unify_list(self.tail, self.place, self.tail))
        return value

    def finish(self, converter: Converter) -> bool:
        return bool(converter.clib.unify_nil(self.tail))


class _WritingCompound(_Writing):
    __slots__ = ("index", "term")

    def __init__(self, clib: CLib, term: int, value: Term, level: int, functor: int) -> None:
        begun = bool(clib.unify_compound(term, functor))
        super().__init__(value, level + 1, iter(value.args), begun)
        self.index = 0
        self.term = level
        clib.put_term(level, term)

    def step(self, clib: CLib) -> Any:
        value = next(self.values, _DONE)
        if value is not _DONE:
            self.index += 1
            clib.get_arg(self.index, self.term, self.place)
        return value


class _WritingDict(_Writing):
    """The arguments of dict_create/3, which makes the dict from its tag and a list of pairs."""

    __slots__ = ("args", "term")

    def __init__(self, converter: Converter, term: int, value: dict[Any, Any]) -> None:
        for key in value:
            _check_key(key)
        pairs = [Term("-", item) for item in value.items()]
        parts = [value.tag, pairs] if isinstance(value, TaggedDict) else [pairs]
        self.args = converter.new_terms(3)
        super().__init__(value, self.args + 2 - len(parts), iter(parts), True)
        self.term = converter.clib.copy_term(term)

    def step(self, _clib: CLib) -> Any:
        self.place += 1
        return next(self.values, _DONE)

    def finish(self, converter: Converter) -> bool:
        return converter.make_dict(self.term, self.args)


def _check_key(key: object) -> None:
    if isinstance(key, bool | PrologString) or not isinstance(key, str | int):
        raise TypeError(f"a key of a dict must be str or int, not {key!r:.80}")
    if isinstance(key, int) and not -_SMALL_KEY <= key < _SMALL_KEY:
        raise ConversionError(f"a key of a dict must be under 2**56, not {key:#x}"[:160])


def encode(text: str) -> bytes:
    """Return the bytes by which text is handed to Prolog; lone surrogates pass through."""
    return text.encode("utf-8", "surrogatepass")
