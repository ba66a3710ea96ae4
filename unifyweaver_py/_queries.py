"""Goals, solutions, errors and foreign predicates on the Prolog engine of the current thread."""

from __future__ import annotations

import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, NoReturn

from unifyweaver_py._clib import (
    EXCEPTION,
    FALSE,
    QUERY_FLAGS,
    TRUE,
    VARARGS,
    CLib,
    ForeignFunction,
)
from unifyweaver_py._conversion import Converter, PendingError, Variables, encode
from unifyweaver_py._errors import ConversionError, EngineUnavailable, prolog_error
from unifyweaver_py._interrupts import Interrupts
from unifyweaver_py._terms import PrologString, Term, Value, Var

_ENGINE: Final = b"deployment_engine"
_PARSED_GOALS: Final = 512
_PARSED_LENGTH: Final = 4096
_KEPT_EXCEPTIONS: Final = 256


@dataclass(slots=True)
class _Parsed:
    """A goal text as a record of what ``parse_goal/4`` made of it, with its variables' names."""

    record: int
    names: tuple[str, ...]
    known: frozenset[str]  # the same
    rules: bool = False  # it was seen to call more than facts


class Queries:
    """Runs goals on whichever Prolog engine is current; knows nothing of threads."""

    def __init__(self, clib: CLib, interrupts: Interrupts) -> None:
        self.clib = clib
        self.converter = Converter(clib)
        self.closed = False
        self._interrupts = interrupts
        self._main = threading.main_thread().ident
        self._parsed: OrderedDict[tuple[str, str], _Parsed] = OrderedDict()
        self._modules: dict[str, int] = {}
        self._exceptions: OrderedDict[int, BaseException] = OrderedDict()
        self._exception_ids = count(1)
        self._functions: list[Any] = []
        self._call = clib.predicate(b"call", 1, b"system")
        self._parse = clib.predicate(b"parse_goal", 4, _ENGINE)
        self._describe = clib.predicate(b"describe", 4, _ENGINE)
        self._chunk = clib.predicate(b"chunk", 3, _ENGINE)
        self._few = clib.predicate(b"few", 3, _ENGINE)
        self._qualified = self.converter.functor(":", 2)

    def once(self, goal: str | Term, bindings: Mapping[str, Value], module: str) -> Any:
        """Return the first solution as a dict, or None."""
        clib = self.clib
        frame = clib.open_frame()
        try:
            term, wanted, variables = self._prepare(goal, bindings, module)
            query = clib.open_query(self.module(module), QUERY_FLAGS, self._call, term)
            status = EXCEPTION
            try:
                status = clib.next_solution(query)
                if status > FALSE:
                    read = self.converter.read
                    return {name: read(place, variables) for name, place in wanted}
                if status == EXCEPTION:
                    record = clib.record(clib.exception(query))
            finally:
                cut = clib.cut_query(query) if status == TRUE else clib.cut_last(query)
            if status == EXCEPTION:
                raise self.error(record)
            if not cut:
                raise self.error(clib.record(clib.exception(0)))
        except PendingError as pending:
            clib.rewind_frame(frame)  # to tell what happened takes room as well
            raise self.error(pending.record) from None
        finally:
            clib.discard_frame(frame)
        return None

    def few(
        self, goal: str, bindings: Mapping[str, Value], module: str
    ) -> list[dict[str, Value]] | None:
        """Return all solutions of a goal that only looks up facts, unless there are more than 8.

        None leaves the question open: nothing was done that could not be done again.
        """
        parsed = self._parsed.get((goal, module))
        if parsed is not None and parsed.rules:
            return None
        cursor = self.open(goal, bindings, module, self._few)
        try:
            rows = cursor.chunk()
            more = cursor.more
        finally:
            cursor.close()
        if not cursor.refused:
            return None if more else rows
        parsed = self._parsed.get((goal, module))
        if parsed is not None:
            parsed.rules = cursor.refused == "rules"
        return None

    def open(
        self,
        goal: str | Term,
        bindings: Mapping[str, Value],
        module: str,
        predicate: int | None = None,
    ) -> Cursor:
        """Open a query for all solutions; the engine that is current belongs to it until closed."""
        clib = self.clib
        frame = clib.open_frame()
        try:
            term, wanted, _ = self._prepare(goal, bindings, module)
            args = clib.new_terms(3)
            if bindings or isinstance(goal, Term):
                self._put_chunk(args, module, term, wanted)
            else:
                clib.get_arg(2, term - 1, args)
                clib.get_arg(3, term - 1, args + 1)
            query = clib.open_query(None, QUERY_FLAGS, predicate or self._chunk, args)
        except PendingError as pending:
            clib.discard_frame(frame)
            self.raise_error(pending.record)
        except BaseException:
            clib.discard_frame(frame)
            raise
        return Cursor(self, frame, query, args + 2, wanted)

    def _put_chunk(self, args: int, module: str, goal: int, wanted: list[tuple[str, int]]) -> None:
        """Put `module:goal` and the row of the variables wanted at two term references."""
        clib = self.clib
        part = clib.new_terms(1)
        clib.unify_compound(args, self._qualified)
        clib.get_arg(1, args, part)
        self.converter.unify(part, module, {})
        clib.get_arg(2, args, part)
        clib.unify(part, goal)
        clib.unify_compound(args + 1, self.converter.functor("row", len(wanted)))
        for index, (_, place) in enumerate(wanted, 1):
            clib.get_arg(index, args + 1, part)
            clib.unify(part, place)

    def module(self, name: str) -> int:
        """Return the handle of a module, which is created if need be."""
        module = self._modules.get(name)
        if module is None:
            atom = self.converter.constant(name)
            module = self._modules[name] = int(self.clib.new_module(atom))
        return module

    # Goals

    def _prepare(
        self, goal: str | Term, bindings: Mapping[str, Value], module: str
    ) -> tuple[int, list[tuple[str, int]], Variables]:
        """Return the goal's term, the variables wanted with their terms, and all `Var` used."""
        if isinstance(goal, Term):
            return self._prepare_term(goal, bindings)
        clib = self.clib
        key = (goal, module)
        parsed = self._parsed.get(key) or self._read_goal(goal, module)
        names = parsed.names
        terms = self.converter.new_terms(len(names) + 2)
        clib.recorded(parsed.record, terms)
        clib.get_arg(1, terms, terms + 1)
        if len(goal) > _PARSED_LENGTH:
            clib.erase(parsed.record)
        variables: Variables = {}
        wanted: list[tuple[str, int]] = []
        for index, name in enumerate(names, 2):
            place = terms + index
            clib.get_arg(index + 2, terms, place)
            if name in bindings:
                self._bind(place, bindings[name], variables)
            elif name[0] != "_":
                wanted.append((name, place))
        if bindings and not parsed.known.issuperset(bindings):
            unknown = ", ".join(sorted(bindings.keys() - set(names)))
            raise ValueError(f"the goal has no variable named {unknown}: {goal:.200}")
        return terms + 1, wanted, variables

    def _prepare_term(
        self, goal: Term, bindings: Mapping[str, Value]
    ) -> tuple[int, list[tuple[str, int]], Variables]:
        variables: Variables = {}
        term = self.converter.new_terms(1)
        self._bind(term, goal, variables)
        places = {variable.name: place for variable, place in variables.items()}
        for name, value in bindings.items():
            if name not in places:
                raise ValueError(f"the goal has no variable named {name}: {goal.name}")
            self._bind(places[name], value, variables)
        wanted = [
            (name, place)
            for name, place in places.items()
            if name[0] != "_" and name not in bindings
        ]
        return term, wanted, variables

    def _bind(self, place: int, value: Value, variables: Variables) -> None:
        if not self.converter.unify(place, value, variables):
            raise self.converter.pending()

    def _read_goal(self, text: str, module: str) -> _Parsed:
        clib = self.clib
        args = self.converter.new_terms(4)
        self._bind(args, PrologString(text), {})
        self._bind(args + 1, module, {})
        self._run(self._parse, args)
        names: Any = self.converter.read(args + 2)
        parsed = _Parsed(clib.record(args + 3), tuple(names), frozenset(names))
        if len(text) <= _PARSED_LENGTH:
            self._remember((text, module), parsed)
        return parsed

    def _remember(self, key: tuple[str, str], parsed: _Parsed) -> None:
        if len(self._parsed) >= _PARSED_GOALS:
            _, oldest = self._parsed.popitem(last=False)
            self.clib.erase(oldest.record)
        self._parsed[key] = parsed

    def forget_goals(self) -> None:
        """Parse every goal text anew: operators or flags may have changed."""
        while self._parsed:
            _, parsed = self._parsed.popitem()
            self.clib.erase(parsed.record)

    def _run(self, predicate: int, args: int) -> bool:
        """Call a predicate once; its bindings stay until the caller's frame ends."""
        clib = self.clib
        query = clib.open_query(None, QUERY_FLAGS, predicate, args)
        status = clib.next_solution(query)
        record = clib.record(clib.exception(query)) if status == EXCEPTION else 0
        if status == TRUE:
            clib.cut_query(query)
        else:
            clib.cut_last(query)
        if record:
            raise self.error(record)
        return bool(status)

    # Errors

    def error(self, record: int) -> BaseException:
        """Return what to raise for a recorded exception term, which is erased."""
        clib = self.clib
        args = clib.new_terms(4)
        clib.recorded(record, args)
        clib.erase(record)
        term = self._read_error(args)
        match term:
            case Term("error", (Term("python_error", (int(number), _, _)), _)):
                original = self._exceptions.pop(number, None)
                if original is not None:
                    return original
            case "$aborted" | Term("unwind", ("abort",)):
                if self._interrupts.flagged and threading.get_ident() == self._main:
                    return KeyboardInterrupt()
                if self.closed:
                    return SystemExit()
        if not self._succeeds(self._describe, args):
            return prolog_error(term, str(term))
        message, file, line = (self.converter.read(args + index) for index in (1, 2, 3))
        return prolog_error(term, str(message).strip(), str(file) or None, int(str(line)) or None)

    def raise_error(self, record: int) -> NoReturn:
        """Raise what `error` returns, outside any other frame."""
        frame = self.clib.open_frame()
        try:
            raise self.error(record)
        finally:
            self.clib.discard_frame(frame)

    def _read_error(self, place: int) -> Value:
        """Return an error term, without its context where that has no Python value."""
        try:
            return self.converter.read(place)
        except ConversionError:
            part = self.clib.new_terms(1)
        if self.clib.get_arg(1, place, part):
            try:
                return Term("error", (self.converter.read(part), Var("_")))
            except ConversionError:
                return Term("error", ("unreadable", Var("_")))
        return "unreadable"

    def _succeeds(self, predicate: int, args: int) -> bool:
        """Call a helper predicate once; an exception in it counts as failure."""
        clib = self.clib
        query = clib.open_query(None, QUERY_FLAGS, predicate, args)
        status = clib.next_solution(query)
        clib.cut_query(query)
        return bool(status > FALSE)

    # Foreign predicates

    def register(self, module: str, name: str, arity: int, function: Callable[..., Value]) -> None:
        """Define a deterministic predicate whose last argument is the function's result."""
        read, unify = self.converter.read, self.converter.unify
        arguments = self._arguments(arity - 1)
        interrupts, main, ident = self._interrupts, self._main, threading.get_ident
        offset = arity - 1

        def call(first: int, _arity: int, _control: object) -> int:
            on_main = False
            try:
                if self.closed:
                    return self._throw(EngineUnavailable("Python is ending"))
                if ident() == main:
                    on_main = interrupts.inside = True
                result = function(read(first)) if offset == 1 else function(*arguments(first))
                if on_main:
                    interrupts.inside = False
                return unify(first + offset, result, {})
            except BaseException as error:  # noqa: BLE001 whatever it is, Prolog carries it
                if on_main:
                    interrupts.inside = False
                return self._throw(error)

        pointer = ForeignFunction(call)
        self._functions.append(pointer)
        self.clib.register(encode(module), encode(name), arity, pointer, VARARGS)

    def _arguments(self, number: int) -> Callable[[int], Sequence[Value]]:
        """Return what reads a number of terms that follow each other."""
        read = self.converter.read
        offsets = range(number)
        return lambda first: [read(first + offset) for offset in offsets]

    def _throw(self, error: BaseException) -> int:
        if isinstance(error, PendingError):
            return self._throw_again(error.record)
        number = next(self._exception_ids)
        while len(self._exceptions) >= _KEPT_EXCEPTIONS:
            self._exceptions.popitem(last=False)
        self._exceptions[number] = error
        text = "".join(traceback.format_exception_only(error)).strip()
        formal = Term("python_error", (number, type(error).__name__, PrologString(text)))
        term = self.clib.new_terms(1)
        self.converter.unify(term, Term("error", (formal, Var("_"))), {})
        return int(self.clib.raise_exception(term))

    def _throw_again(self, record: int) -> int:
        term = self.clib.new_terms(1)
        self.clib.recorded(record, term)
        self.clib.erase(record)
        return int(self.clib.raise_exception(term))


class Cursor:
    """An open query: `chunk` gives its next solutions. Used with its own engine current."""

    def __init__(
        self,
        queries: Queries,
        frame: int,
        query: int,
        chunk: int,
        wanted: list[tuple[str, int]],
    ) -> None:
        self._queries = queries
        self._frame = frame
        self._query = query
        self._chunk = chunk
        self._wanted = wanted
        self.more = True
        self.refused = ""

    def chunk(self) -> list[dict[str, Value]]:
        """Return the next solutions; `more` tells whether to ask again."""
        queries = self._queries
        clib = queries.clib
        status = clib.next_solution(self._query)
        self.more = status == TRUE
        if status == EXCEPTION:
            record = clib.record(clib.exception(self._query))
            self._end()
            queries.raise_error(record)
        return self._rows() if status else []

    def _rows(self) -> list[dict[str, Value]]:
        clib = self._queries.clib
        frame = clib.open_frame()
        try:
            return self._read()
        except PendingError as pending:
            clib.rewind_frame(frame)
            raise self._queries.error(pending.record) from None
        finally:
            clib.discard_frame(frame)

    def _read(self) -> list[dict[str, Value]]:
        converter = self._queries.converter
        read = converter.read
        get_arg = converter.clib.get_arg
        part = converter.new_terms(1)
        if not get_arg(1, self._chunk, part):
            kind = read(self._chunk)
            if kind != "one":
                self.refused = str(kind)
                return []
            variables: Variables = {}
            return [{name: read(place, variables) for name, place in self._wanted}]
        names = tuple(name for name, _ in self._wanted)
        first: Any = read(part)
        if not get_arg(2, self._chunk, part):
            return [dict(zip(names, row.args, strict=True)) for row in first]
        place = converter.new_terms(1)
        get_arg(3, self._chunk, place)
        length = read(place)
        columns = [_column(column) for column in first]
        if all(column is not None and len(column) == length for column in columns):
            return _dicts(names, columns)
        values: Any = read(part)
        return [dict(zip(names, row.args, strict=True)) for row in values]

    def _end(self) -> bool:
        query, self._query = self._query, 0
        cut = bool(self._queries.clib.cut_query(query))
        self._queries.clib.discard_frame(self._frame)
        self.more = False
        return cut

    @property
    def open(self) -> bool:
        """Whether there is something to close."""
        return bool(self._query)

    def close(self) -> None:
        """End the query; what it left to undo (cleanup handlers) runs now, and may raise."""
        if self._query and not self._end():
            clib = self._queries.clib
            self._queries.raise_error(clib.record(clib.exception(0)))


_COLUMN_TYPES: Final[dict[str, Callable[[str], Any]]] = {
    "atoms": str,
    "integers": int,
    "strings": PrologString,
}


def _column(column: Term) -> list[Any] | None:
    """Return the values of a column, or None if Python refuses to read so long a number."""
    text: Any = column.args[0]
    parts = text.split("\0")
    if column.name == "atoms":
        return parts  # type: ignore[no-any-return]
    try:
        return list(map(_COLUMN_TYPES[column.name], parts))
    except ValueError:
        return None


def _dicts(names: tuple[str, ...], columns: list[Any]) -> list[dict[str, Value]]:
    """Return the rows of columns of one length; written out for the usual widths, for speed."""
    match names:
        case (a,):
            return [{a: x} for x in columns[0]]
        case (a, b):
            return [{a: x, b: y} for x, y in zip(*columns, strict=True)]
        case (a, b, c):
            return [{a: x, b: y, c: z} for x, y, z in zip(*columns, strict=True)]
        case _:
            return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
