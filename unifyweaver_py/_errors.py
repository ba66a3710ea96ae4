"""The exceptions of the library.

::

    UnifyWeaverError
    ├── PrologNotFound              SWI-Prolog is missing or too old (also an ImportError)
    ├── EngineUnavailable           Prolog can't be used here: after a fork, or at exit
    ├── ConversionError             a term has no Python value, or the reverse (also a ValueError)
    └── PrologError                 a Prolog goal raised
        ├── InstantiationError      an argument is unbound
        ├── TypeError_              an argument is of the wrong type
        ├── DomainError             an argument is of the right type and a wrong value
        ├── ExistenceError          a service, file, predicate... does not exist
        ├── PermissionError_        the operation is not allowed
        ├── RepresentationError     a limit of the implementation
        ├── EvaluationError         arithmetic, such as division by zero
        ├── ResourceError           memory, stack, threads
        ├── SyntaxError_            text that is no Prolog term
        ├── LoadError               a file that did not load; all its problems are in `problems`
        └── PythonError             a Python exception that is no longer at hand

A Python exception raised by an effect is none of these: it reaches the caller as itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from unifyweaver_py._terms import Term, Value


class UnifyWeaverError(Exception):
    """Everything that this library raises on its own account."""


class PrologNotFound(UnifyWeaverError, ImportError):
    """SWI-Prolog 9.0 or newer was not found; the message tells how to install it."""


class EngineUnavailable(UnifyWeaverError, RuntimeError):
    """Prolog can't be used from here: this is a forked process, or Python is ending."""


class ConversionError(UnifyWeaverError, ValueError):
    """A term has no Python counterpart (cyclic, a stream...), or text can't be a Prolog atom."""


class PrologError(UnifyWeaverError):
    """A Prolog goal raised.

    Attributes:
        term: what was thrown, as a Python value.
        message: the text that Prolog prints for it.
        file: the Prolog file of the clause that raised, where known.
        line: the line in `file`, from 1.
    """

    def __init__(
        self, term: Value, message: str, file: str | None = None, line: int | None = None
    ) -> None:
        super().__init__(message)
        self.term = term
        self.message = message
        self.file = file
        self.line = line

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.term, self.message, self.file, self.line)

    def __str__(self) -> str:
        if self.file is None:
            return self.message
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{self.message} (raised at {place})"

    @property
    def formal(self) -> Value:
        """The first argument of ``error/2``, or the whole term."""
        match self.term:
            case Term("error", (formal, _)):
                return formal
            case _:
                return self.term


class InstantiationError(PrologError):
    """An argument that must be bound is a variable."""


class TypeError_(PrologError):
    """An argument is of the wrong type."""


class DomainError(PrologError):
    """An argument is of the right type, but not a value that is allowed."""


class ExistenceError(PrologError):
    """Something that was named does not exist."""


class PermissionError_(PrologError):
    """The operation is not allowed on this object."""


class RepresentationError(PrologError):
    """A limit of the Prolog implementation was met."""


class EvaluationError(PrologError):
    """An arithmetic expression has no value."""


class ResourceError(PrologError):
    """Prolog ran out of memory, stack or another resource."""


class SyntaxError_(PrologError):
    """Text that is not a Prolog term."""


class PythonError(PrologError):
    """A Python exception crossed Prolog and the exception object is no longer kept."""


@dataclass(frozen=True, slots=True)
class LoadProblem:
    """One error or warning printed while a file was loaded; `line` is from 1, 0 if unknown."""

    kind: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.text}"


class LoadError(PrologError):
    """A Prolog file did not load cleanly.

    Attributes:
        problems: every error and warning, in the order in which Prolog reported them.
    """

    def __init__(self, path: str, problems: tuple[LoadProblem, ...]) -> None:
        text = "\n".join([f"{path} did not load:", *(f"  {problem}" for problem in problems)])
        super().__init__(Term("load_error", (path,)), text)
        self.path = path
        self.problems = problems

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.problems)


_CLASSES: dict[str, type[PrologError]] = {
    "instantiation_error": InstantiationError,
    "uninstantiation_error": InstantiationError,
    "type_error": TypeError_,
    "domain_error": DomainError,
    "existence_error": ExistenceError,
    "permission_error": PermissionError_,
    "representation_error": RepresentationError,
    "evaluation_error": EvaluationError,
    "resource_error": ResourceError,
    "syntax_error": SyntaxError_,
    "python_error": PythonError,
}


def prolog_error(
    term: Value, message: str, file: str | None = None, line: int | None = None
) -> PrologError:
    """Return the exception whose class fits the error term."""
    match term:
        case Term("error", (Term(name, _) | str(name), _)):
            kind = _CLASSES.get(name, PrologError)
        case _:
            kind = PrologError
    return kind(term, message, file, line)
