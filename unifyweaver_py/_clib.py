"""The functions of SWI-Prolog's C interface that the engine uses, with their types.

Small functions that neither wait nor call back keep Python's interpreter lock: releasing it costs
more than they do. Those that run Prolog code release it, for that code may call Python or wait.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_double, c_int, c_int64, c_size_t, c_void_p
from typing import Any, Final

VARIABLE: Final = 1
ATOM: Final = 2
INTEGER: Final = 3
RATIONAL: Final = 4
FLOAT: Final = 5
STRING: Final = 6
COMPOUND: Final = 7
NIL: Final = 8
BLOB: Final = 9
LIST_PAIR: Final = 10
DICT: Final = 44

CVT_ATOM: Final = 0x01
CVT_STRING: Final = 0x02
CVT_VARIABLE: Final = 0x40
CVT_WRITE: Final = 0x80
REP_UTF8: Final = 0x00100000

# Normal, not without debugger, where no exception hook runs; exceptions caught; extended status.
QUERY_FLAGS: Final = 0x0002 | 0x0008 | 0x0040
EXCEPTION: Final = -1
FALSE: Final = 0
TRUE: Final = 1  # with more solutions to come
LAST: Final = 2

VARARGS: Final = 0x08
COMPILED_VERSIONS: Final = (1, 4, 6, 7)  # of the system, .qlf files, virtual machine, built-ins
CLEANUP_NO_RECLAIM_MEMORY: Final = 0x10000
CLEANUP_NO_CANCEL: Final = 0x20000
MAIN_ENGINE: Final = 1
CURRENT_ENGINE: Final = 2

ForeignFunction = ctypes.CFUNCTYPE(c_size_t, c_size_t, c_int, c_void_p)


class TermValue(ctypes.Union):
    """What ``PL_get_term_value`` fills in: a small integer, a float, or an atom."""

    _fields_ = (
        ("integer", c_int64),
        ("number", c_double),
        ("atom", c_size_t),
        ("compound", c_size_t * 2),
    )


class CLib:
    """Typed entry points into one loaded ``libswipl``."""

    def __init__(self, library: str) -> None:
        held = ctypes.PyDLL(library, mode=ctypes.RTLD_GLOBAL)
        released = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)

        def quick(name: str, result: Any, *args: Any) -> Callable[..., Any]:
            return _typed(held, name, result, args)

        def slow(name: str, result: Any, *args: Any) -> Callable[..., Any]:
            return _typed(released, name, result, args)

        def on_terms(name: str) -> Callable[..., Any]:
            # Term references fit in an int, which ctypes assumes where no types are declared;
            # checking declared types would double the cost of these, the most frequent calls.
            return _typed(held, name, c_int, None)

        term = atom = functor = frame = query = size = c_size_t
        text = c_char_p
        pointer = c_void_p

        self.initialise = slow("PL_initialise", c_int, c_int, pointer)
        self.is_initialised = quick("PL_is_initialised", c_int, pointer, pointer)
        self.cleanup = slow("PL_cleanup", c_int, c_int)
        self.version = quick("PL_version_info", ctypes.c_uint, c_int)

        self.thread_self = quick("PL_thread_self", c_int)
        self.create_engine = slow("PL_create_engine", pointer, pointer)
        self.set_engine = quick("PL_set_engine", c_int, pointer, pointer)
        self.destroy_engine = slow("PL_destroy_engine", c_int, pointer)

        self.open_frame = quick("PL_open_foreign_frame", frame)
        self.close_frame = quick("PL_close_foreign_frame", None, frame)
        self.discard_frame = quick("PL_discard_foreign_frame", None, frame)
        self.rewind_frame = quick("PL_rewind_foreign_frame", None, frame)
        self.new_terms = quick("PL_new_term_refs", term, c_int)
        self.copy_term = quick("PL_copy_term_ref", term, term)

        self.new_module = quick("PL_new_module", pointer, atom)
        self.predicate = quick("PL_predicate", pointer, text, c_int, text)
        self.open_query = quick("PL_open_query", query, pointer, c_int, pointer, term)
        self.next_solution = slow("PL_next_solution", c_int, query)
        self.cut_last = quick("PL_cut_query", c_int, query)  # no choice point is left
        self.cut_query = slow("PL_cut_query", c_int, query)
        self.exception = quick("PL_exception", term, query)
        self.handle_signals = slow("PL_handle_signals", c_int)
        self.clear_exception = quick("PL_clear_exception", None)
        self.raise_exception = quick("PL_raise_exception", c_int, term)
        self.call_quick = quick("PL_call_predicate", c_int, pointer, c_int, pointer, term)
        self.register = quick(
            "PL_register_foreign_in_module", c_int, text, text, c_int, ForeignFunction, c_int
        )

        self.new_atom = quick("PL_new_atom_mbchars", atom, c_int, size, text)
        self.keep_atom = quick("PL_register_atom", None, atom)
        self.release_atom = quick("PL_unregister_atom", None, atom)
        self.new_functor = quick("PL_new_functor_sz", functor, atom, size)

        self.term_type = on_terms("PL_term_type")
        # Not for strings: it copies the text as well.
        self.term_value = on_terms("PL_get_term_value")
        self.get_int64 = on_terms("PL_get_int64")
        self.get_text = quick("PL_get_nchars", c_int, term, pointer, pointer, ctypes.c_uint)
        self.mark_buffers = on_terms("PL_mark_string_buffers")
        self.release_buffers = quick("PL_release_string_buffers_from_mark", None, size)
        self.get_arg = on_terms("PL_get_arg")
        self.get_nil = quick("PL_get_nil", c_int, term)
        self.get_list = on_terms("PL_get_list")
        self.put_term = quick("PL_put_term", c_int, term, term)
        self.put_atom = quick("PL_put_atom", c_int, term, atom)
        self.is_acyclic = quick("PL_is_acyclic", c_int, term)

        self.unify = quick("PL_unify", c_int, term, term)
        self.unify_int64 = quick("PL_unify_int64", c_int, term, c_int64)
        self.unify_float = quick("PL_unify_float", c_int, term, c_double)
        self.unify_atom = quick("PL_unify_atom", c_int, term, atom)
        self.unify_nil = quick("PL_unify_nil", c_int, term)
        self.unify_list = quick("PL_unify_list", c_int, term, term, term)
        self.unify_text = quick("PL_unify_chars", c_int, term, c_int, size, text)
        self.unify_compound = quick("PL_unify_compound", c_int, term, functor)
        self.put_from_text = quick("PL_put_term_from_chars", c_int, term, c_int, size, text)

        self.record = quick("PL_record", pointer, term)
        self.recorded = quick("PL_recorded", c_int, pointer, term)
        self.erase = quick("PL_erase", None, pointer)


_SIGACTION_BYTES: Final = 512  # more than any system's struct sigaction
_SIGNAL_STACK_BYTES: Final = 1 << 18


@contextmanager
def signals_kept() -> Iterator[None]:
    """Give back all signals that Prolog takes in the block but SIGSEGV.

    By that one Prolog notices that its C code has nested too deep (printing a deep term), raises a
    resource error, and does not crash the process.
    """
    sigaction = ctypes.CDLL(None).sigaction
    kept = {
        number: ctypes.create_string_buffer(_SIGACTION_BYTES) for number in signal.valid_signals()
    }
    del kept[signal.SIGSEGV]
    for number, action in kept.items():
        sigaction(number, None, action)
    try:
        yield
    finally:
        for number, action in kept.items():
            sigaction(number, action, None)  # of SIGKILL and the like nothing was kept


class _SignalStack(ctypes.Structure):
    _fields_ = (
        (("sp", c_void_p), ("size", c_size_t), ("flags", c_int))
        if sys.platform == "darwin"
        else (("sp", c_void_p), ("flags", c_int), ("size", c_size_t))
    )


def signal_stack() -> object:
    """Give this thread a stack for SIGSEGV, which can't be handled on one that is full.

    Prolog does so for every thread but for one that takes over its main engine from another. The
    result is to be kept as long as the thread lives.
    """
    memory = ctypes.create_string_buffer(_SIGNAL_STACK_BYTES)
    stack = _SignalStack(sp=ctypes.addressof(memory), size=_SIGNAL_STACK_BYTES, flags=0)
    ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None)
    return memory


def _typed(
    library: Any, name: str, result: Any, args: tuple[Any, ...] | None
) -> Callable[..., Any]:
    # Indexing makes a function object of its own; attribute access would share one with others.
    function = library[name]
    function.restype = result
    function.argtypes = args
    return function  # type: ignore[no-any-return]
