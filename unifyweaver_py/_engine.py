"""Prolog inside this process: started when first used, asked from any thread.

What is asked once runs on the thread that asks. Python's main thread has Prolog's main engine; any
other thread makes an engine when it first asks, and destroys it when it ends. A foreign predicate
may ask in its turn: that query nests on the engine that called it.

An iteration has an engine and a thread to itself until it is exhausted, closed or forgotten, so
that any number may be open side by side, and any thread may go on with one.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from types import ModuleType
from typing import Any, Final, TypeVar

from unifyweaver_py import _interrupts
from unifyweaver_py._clib import (
    CLEANUP_NO_CANCEL,
    CLEANUP_NO_RECLAIM_MEMORY,
    COMPILED_VERSIONS,
    CURRENT_ENGINE,
    MAIN_ENGINE,
    CLib,
    signal_stack,
    signals_kept,
)
from unifyweaver_py._compiled import Compiled
from unifyweaver_py._errors import (
    EngineUnavailable,
    LoadError,
    LoadProblem,
    PrologError,
    PrologNotFound,
)
from unifyweaver_py._interrupts import PrologEngine
from unifyweaver_py._iterations import Iterations
from unifyweaver_py._paths import prolog_dir
from unifyweaver_py._queries import Queries
from unifyweaver_py._terms import Term, Value

T = TypeVar("T")

DEFAULT_MODULE: Final = "deployment_user"

_NONE: Final = -1  # what Prolog calls the engine of a thread that has none
_ENDING: Final = "Python is ending"
_OLDEST: Final = 90000  # 9.0.0
_OPTIONS: Final = (b"-q", b"-f", b"none", b"--no-packs", b"--sigalert=0")
_IDLE_ENGINES: Final = 16
_EXIT_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.2


class Engine:
    """The Prolog engine of this process. `engine()` returns the one there is."""

    def __init__(self, clib: CLib) -> None:
        self._clib = clib
        self._main = threading.main_thread().ident
        self.interrupts = _interrupts.Interrupts(self.interrupt, self._drain)
        self.queries = Queries(clib, self.interrupts)
        self._iterations = Iterations(self)
        self._local = threading.local()
        self._busy: set[PrologEngine] = set()
        self._signal_stack: object = None
        self.closed = ""

    def query(
        self,
        goal: str | Term,
        bindings: Mapping[str, Value] | None = None,
        module: str = DEFAULT_MODULE,
    ) -> Iterator[dict[str, Value]]:
        """Return the solutions of a goal, one dict of the goal's named variables each.

        Solutions are fetched ahead in chunks that grow from 8 to 1024. The iterator may be
        dropped half-way, and continued on another thread. The goal runs on a thread of its own.

        Args:
            goal: Prolog text, or a term.
            bindings: values for variables of the goal; these are not part of the solutions,
                nor are variables whose name starts with `_`.
            module: where the goal's predicates are looked up.

        Raises:
            KeyboardInterrupt: at Ctrl-C, on Python's main thread.
            PrologError: the goal is no Prolog text, or it raised.
            ValueError: `bindings` names a variable that the goal does not have.
            TypeError: a value has no Prolog counterpart.
        """
        bindings = bindings or {}
        if isinstance(goal, str):
            rows = self.run(self.queries.few, goal, bindings, module)
            if rows is not None:
                yield from rows
                return
        opened = self._iterations.open(goal, bindings, module)
        try:
            while opened.more:
                yield from opened.chunk()
        finally:
            opened.end()

    def once(
        self,
        goal: str | Term,
        bindings: Mapping[str, Value] | None = None,
        module: str = DEFAULT_MODULE,
        *,
        on_interrupt: Callable[[], object] | None = None,
    ) -> dict[str, Value] | None:
        """Return the first solution of a goal, or None.

        Args:
            goal, bindings, module: as for `query`.
            on_interrupt: called at the first Ctrl-C, after which the answer is waited for all the
                same; a second Ctrl-C raises at once and leaves the goal to itself. Without it the
                first Ctrl-C ends the goal.

        Raises:
            KeyboardInterrupt: at Ctrl-C, on Python's main thread.
            PrologError, ValueError, TypeError: as for `query`.
            Exception: whatever a Python function called by the goal raised.
        """
        if on_interrupt is not None and threading.get_ident() == self._main:
            return self._apart(goal, bindings or {}, module, on_interrupt)
        result: dict[str, Value] | None = self.run(self.queries.once, goal, bindings or {}, module)
        return result

    def register(self, module: str, name: str, arity: int, function: Callable[..., Value]) -> None:
        """Define the predicate `module:name/arity` by a Python function.

        The function gets the first `arity - 1` arguments as Python values; what it returns is
        unified with the last one. It may be called on several threads at a time, and may use this
        engine. What it raises passes through Prolog as
        `error(python_error(Id, Class, Text), _)`; uncaught there, the same exception is raised
        again where the goal was asked.
        """
        if arity < 1:
            raise ValueError("a foreign predicate needs a last argument for its result")
        self.run(self.queries.register, module, name, arity, function)

    def consult(self, path: str | Path) -> None:
        """Load a trusted Prolog file into `user`; its directives run.

        Raises:
            LoadError: the file is missing, or loading it printed errors or warnings.
        """
        file = os.fspath(path)
        solution = self.once(
            "deployment_engine:load(File, Problems)", {"File": file}, module="user"
        )
        problems = self._problems(solution, file)
        if problems:
            raise LoadError(file, problems)

    def compile_first(self, file: Path) -> bool:
        """Compile a Prolog file while nothing else of this library is loaded, and load it."""
        goal = Term("qcompile", (str(file), [Term("include", ("user",))]))
        try:
            return self.once(goal, module="user") is not None
        except (
            PrologError
        ):  # as on a full disk; what is wrong with a source is told when it is loaded
            return False

    def compile(self, file: Path) -> bool:
        """Compile a Prolog file with all that it loads, and load it.

        False after a warning, and where it could not be written, as on a full disk.

        Raises:
            LoadError: there is an error in a source.
        """
        goal = "deployment_engine:compile(File, Problems)"
        solution = self.once(goal, {"File": str(file)}, module="user")
        problems = self._problems(solution, str(prolog_dir()))
        if any(problem.kind == "error" and problem.line for problem in problems):
            raise LoadError(str(prolog_dir()), problems)
        return not problems

    def open_library(self, folder: str) -> None:
        """Find Prolog libraries in a folder, and import `library(deployment_glue)` if it is there.

        Raises:
            LoadError: a file of the library printed an error.
        """
        solution = self.once(
            "deployment_engine:open_library(Folder, Module, Problems)",
            {"Folder": folder, "Module": DEFAULT_MODULE},
            module="user",
        )
        problems = self._problems(solution, folder)
        if any(problem.kind == "error" for problem in problems):
            raise LoadError(folder, problems)

    def _problems(self, solution: dict[str, Value] | None, file: str) -> tuple[LoadProblem, ...]:
        """Return what was reported while a file was loaded, and let its operators take effect."""
        self.run(self.queries.forget_goals)
        terms: Any = solution["Problems"] if solution else []
        return tuple(
            LoadProblem(kind, where or file, line, text.strip())
            for kind, where, line, text in (term.args for term in terms)
        )

    # Which Prolog engine a thread uses

    def run(self, work: Callable[..., T], *args: Any) -> T:
        """Call `work` with a Prolog engine current on this thread."""
        if self.closed:
            raise self.refusal()
        own = self._clib.thread_self()
        if threading.get_ident() == self._main:
            current = PrologEngine(CURRENT_ENGINE, own if own != _NONE else self._adopt_main())
            return self.interrupts.run(current, work, *args)
        if own != _NONE:
            return work(*args)
        try:
            mine: _Own = self._local.own
        except AttributeError:
            mine = self._local.own = _Own(self)
        return self._switched(mine.prolog, work, *args)

    def refusal(self) -> BaseException:
        """Return what ends a thread that goes on asking: in silence, if Python itself is ending."""
        if self.closed == _ENDING and threading.get_ident() != self._main:
            return SystemExit()
        return EngineUnavailable(self.closed or "this iteration has ended")

    def _switched(self, engine: PrologEngine, work: Callable[..., T], *args: Any) -> T:
        set_engine = self._clib.set_engine
        before = ctypes.c_void_p()
        if set_engine(engine.handle, ctypes.byref(before)):
            raise EngineUnavailable("this Prolog engine is in use by another thread")
        self._busy.add(engine)
        try:
            return work(*args)
        finally:
            self._busy.discard(engine)
            set_engine(before, None)

    def _adopt_main(self) -> int:
        """Make Prolog's main engine that of Python's main thread, and return its identifier."""
        if self._clib.set_engine(MAIN_ENGINE, None):
            raise EngineUnavailable("Prolog's main engine is in use by another thread")
        self._signal_stack = signal_stack()
        return int(self._clib.thread_self())

    def create(self) -> PrologEngine:
        """Return a new engine, which belongs to the thread that calls."""
        clib = self._clib
        handle = None if self.closed else clib.create_engine(None)
        if not handle:
            raise EngineUnavailable(self.closed or "Prolog has no engine to spare")
        before = ctypes.c_void_p()
        clib.set_engine(handle, ctypes.byref(before))
        number = clib.thread_self()
        clib.set_engine(before, None)
        return PrologEngine(handle, number)

    def destroy(self, engine: PrologEngine) -> None:
        """Destroy an idle engine, on the thread that made it."""
        if not self.closed:
            self._clib.destroy_engine(engine.handle)

    def attach(self) -> PrologEngine:
        """Give the thread that calls a Prolog engine that stays current on it."""
        engine = self.create()
        self._clib.set_engine(engine.handle, None)
        return engine

    def detach(self, engine: PrologEngine) -> None:
        """End what `attach` began."""
        if not self.closed:
            self._clib.set_engine(None, None)
            self.destroy(engine)

    def leave_main(self) -> None:
        """Leave Prolog's main engine to Python's main thread, if this is another one."""
        if threading.get_ident() != self._main:
            self._clib.set_engine(None, None)

    def close(self) -> None:
        """End Prolog at the end of the process. Whatever still runs gets one second to stop."""
        if self.closed:
            return
        self.interrupts.close()
        self._iterations.close(_EXIT_SECONDS)
        self.once("deployment_engine:begin_ending", module="user")
        self.queries.closed = True
        self._stop_busy()
        try:
            alone = self.once("deployment_engine:finish", module="user") is not None
        finally:
            self.closed = _ENDING
        if self._running() or not alone:
            return
        self._clib.cleanup(CLEANUP_NO_RECLAIM_MEMORY | CLEANUP_NO_CANCEL)

    def _running(self) -> list[PrologEngine]:
        return [*self._busy, *self._iterations.busy]

    def _stop_busy(self) -> None:
        deadline = monotonic() + _EXIT_SECONDS
        while (running := self._running()) and monotonic() < deadline:
            for engine in running:
                self.interrupt(engine)
            sleep(0.02)

    def abandon(self) -> None:
        """Refuse to work from now on: this is a forked process, which has none of the threads."""
        self.closed = "Prolog does not survive a fork; start a new process (spawn) instead"

    def _drain(self, engine: PrologEngine) -> None:
        """Have an idle engine take the interrupts that came too late for its query."""
        self._switched(engine, self.take_signals)

    def take_signals(self) -> None:
        """Drop what was sent to the engine of this thread, and not in time for its query."""
        while self._clib.handle_signals() < 0:  # each raised, and is taken off the queue
            self._clib.clear_exception()

    def interrupt(self, engine: PrologEngine) -> None:
        """Let an engine unwind what it runs, at its next step in Prolog."""
        self.once(Term("interrupt", (engine.thread,)), module="deployment_engine")

    def _apart(
        self,
        goal: str | Term,
        bindings: Mapping[str, Value],
        module: str,
        on_interrupt: Callable[[], object],
    ) -> dict[str, Value] | None:
        """Ask on another thread, so that the main thread is free for Ctrl-C."""
        outcome: list[Any] = [None, None]
        done = threading.Event()

        def ask() -> None:
            try:
                outcome[0] = self.once(goal, bindings, module)
            except BaseException as error:  # noqa: BLE001 the thread that waits raises it again
                outcome[1] = error
            finally:
                done.set()

        with _interrupts.attended(on_interrupt):
            threading.Thread(target=ask, name="prolog-operation", daemon=True).start()
            while not done.wait(_LOOK_SECONDS):  # a signal may have come to another thread
                pass
        result, error = outcome
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]


class _Own:
    """The Prolog engine of one thread, which alone refers to it, and empties its locals as its last act."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ident = threading.get_ident()
        self.prolog = engine.create()

    def __del__(self) -> None:
        if threading.get_ident() == self._ident and hasattr(self, "prolog"):
            self._engine.destroy(self.prolog)


@dataclass(slots=True)
class _Process:
    """What there is once in a process."""

    engine: Engine | None = None
    starting: threading.Lock = field(default_factory=threading.Lock)


_process: Final = _Process()


def engine() -> Engine:
    """Return the Prolog engine of this process; the first call starts it.

    Raises:
        PrologNotFound: SWI-Prolog is missing, or older than 9.0.
        LoadError: the Prolog half of this library does not load.
        KeyboardInterrupt: at Ctrl-C, once it has started (which takes some tenths of a second).
    """
    if _process.engine is None:
        with _interrupts.deferred(), _process.starting:
            if _process.engine is None:
                started = _start()
                started.leave_main()
                started.interrupts.open()
                atexit.register(started.close)
                os.register_at_fork(after_in_child=started.abandon)
                _process.engine = started
    return _process.engine


def _start() -> Engine:
    core = _load_core()
    clib = CLib(core._lib._name)
    _initialise(clib, core.SWI_HOME_DIR)
    _adopt_package(core)
    started = Engine(clib)
    folder = prolog_dir()
    for flag in ("debug_on_error", "report_error"):
        started.once(Term("set_prolog_flag", (flag, False)), module="user")
    compiled = Compiled(folder, map(clib.version, COMPILED_VERSIONS))
    engine_file = compiled.file("deployment/engine.pl", started.compile_first)
    started.once(_loading(engine_file or folder / "deployment/engine.pl"), module="user")
    started.once("guard_halt", module="deployment_engine")
    if library := compiled.file("deployment_glue.pl", started.compile):
        started.once(_loading(library), module="user")
    started.open_library(str(folder))
    return started


def _loading(file: Path) -> Term:
    return Term("load_files", (str(file), [Term("imports", ([],)), Term("silent", ("true",))]))


def _load_core() -> Any:
    """Load pyswip's bindings without running its package, which would start Prolog its own way."""
    if "pyswip" in sys.modules:
        return importlib.import_module("pyswip.core")
    spec = importlib.util.find_spec("pyswip")
    if spec is None or spec.submodule_search_locations is None:
        raise PrologNotFound("the Python package pyswip is missing: pip install pyswip")
    stub = ModuleType("pyswip")
    stub.__path__ = list(spec.submodule_search_locations)
    leave = sys.exit
    sys.modules["pyswip"] = stub
    try:
        return importlib.import_module("pyswip.core")
    except PrologNotFound:
        raise
    except Exception as error:  # pyswip raises plain exceptions when it finds no library
        raise PrologNotFound(_how_to_install(str(error))) from error
    finally:
        del sys.modules["pyswip"]
        sys.exit = leave


def _initialise(clib: CLib, home: str | None) -> None:
    version = clib.version(1)
    if version < _OLDEST:
        found = f"{version // 10000}.{version // 100 % 100}.{version % 100}"
        raise PrologNotFound(_how_to_install(f"SWI-Prolog {found} is too old"))
    if clib.is_initialised(None, None):
        return
    arguments = [b"unifyweaver", *_OPTIONS]
    if home:
        arguments.append(b"--home=" + os.fsencode(home))
    array = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
    with signals_kept():
        started = clib.initialise(len(arguments), ctypes.addressof(array))
    if not started:
        raise PrologNotFound(_how_to_install("SWI-Prolog could not be started"))


def _adopt_package(core: Any) -> None:
    """Complete pyswip for whoever else uses it; ending Prolog is ours."""
    leave = sys.exit
    package: Any = importlib.import_module("pyswip")
    package.core = core
    sys.exit = leave
    atexit.unregister(core.cleanupProlog)


def _how_to_install(problem: str) -> str:
    if sys.platform == "darwin":
        command = "brew install swi-prolog"
    elif shutil.which("dnf"):
        command = "sudo dnf install pl"
    else:
        command = "sudo apt-get install swi-prolog-nox"
    return f"{problem}. SWI-Prolog 9.0 or newer is needed: {command}"
