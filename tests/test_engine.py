"""Queries, errors, threads and Ctrl-C at the boundary between Python and Prolog."""

from __future__ import annotations

import gc
import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unifyweaver_py import _errors as errors
from unifyweaver_py._engine import Engine, engine
from unifyweaver_py._errors import LoadError, PrologError
from unifyweaver_py._terms import PrologString, Term, Value, Var

MODULE = "engine_test"


@pytest.fixture(scope="module")
def prolog() -> Engine:
    started = engine()
    started.once(
        "retractall(fact(_, _, _)), "
        'forall(between(1, 5000, I), (atom_number(A, I), assertz(fact(I, A, "x"))))',
        module=MODULE,
    )
    return started


@pytest.fixture
def define(prolog: Engine) -> Callable[..., None]:
    def register(name: str, arity: int, function: Callable[..., Value]) -> None:
        prolog.register(MODULE, name, arity, function)

    return register


def sigint_after(seconds: float, times: int = 1, gap: float = 0.3) -> None:
    def press() -> None:
        for press_number in range(times):
            time.sleep(gap if press_number else seconds)
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()


def on_thread(work: Callable[[], object]) -> None:
    """Do something on another thread, and wait for it; what it raises is raised here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 raised by the thread that waits
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


class Took:
    def __enter__(self) -> Took:
        self.start = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self.start


# Queries


def test_a_failing_goal_has_no_solution(prolog: Engine) -> None:
    assert prolog.once("fail") is None
    assert list(prolog.query("fail")) == []


def test_a_true_goal_without_variables(prolog: Engine) -> None:
    assert prolog.once("true") == {}
    assert list(prolog.query("true ; true")) == [{}, {}]


def test_named_variables_are_reported_and_underscored_ones_are_not(prolog: Engine) -> None:
    assert prolog.once("X = 1, _Y = 2, _ = 3") == {"X": 1}
    assert list(prolog.query("member(X, [1, 2]), _Y = 2")) == [{"X": 1}, {"X": 2}]


def test_bindings_are_terms_and_not_reported(prolog: Engine) -> None:
    hostile = "'), halt, ('"
    assert prolog.once("Y = X", {"X": hostile}) == {"Y": hostile}
    assert list(prolog.query("member(Y, X)", {"X": [hostile]})) == [{"Y": hostile}]


def test_a_binding_may_name_an_underscored_variable(prolog: Engine) -> None:
    assert prolog.once("Y = _X", {"_X": 1}) == {"Y": 1}


def test_an_unknown_binding_is_refused(prolog: Engine) -> None:
    with pytest.raises(ValueError, match="no variable named Z"):
        prolog.once("true", {"Z": 1})


def test_a_term_is_a_goal(prolog: Engine) -> None:
    goal = Term("member", (Var("X"), [1, 2, 3]))
    assert prolog.once(goal) == {"X": 1}
    assert [solution["X"] for solution in prolog.query(goal)] == [1, 2, 3]
    assert prolog.once(Term("=", (Var("X"), Var("Y"))), {"X": 5}) == {"Y": 5}


def test_solutions_of_every_type_come_in_order(prolog: Engine) -> None:
    rows = list(prolog.query("fact(I, A, S)", module=MODULE))
    assert rows == [{"I": i, "A": str(i), "S": "x"} for i in range(1, 5001)]
    assert all(type(row["S"]) is PrologString and type(row["A"]) is str for row in rows)


@pytest.mark.parametrize(
    "values",
    [
        [f"a{i}" for i in range(100)],
        [*(f"a{i}" for i in range(100)), "a\0b"],
        [PrologString("\0")] * 50,
        [*range(100), "mixed"],
        [*range(100), 2**70, -(2**20_000)],
        [*["a"] * 50, []],
        [""] * 30,
        [1.5] * 30,
        [["nested", Term("f", (1,))]] * 30,
    ],
)
def test_columns_are_exact(prolog: Engine, values: list[Value]) -> None:
    rows = [row["X"] for row in prolog.query("member(X, Values), _Y = X", {"Values": values})]
    assert rows == values
    assert list(map(type, rows)) == list(map(type, values))


def test_a_query_is_lazy_and_may_be_left_half_way(prolog: Engine) -> None:
    numbers = prolog.query("between(1, inf, X)")
    others = prolog.query("between(1, inf, X)")
    assert [next(numbers)["X"] for _ in range(200)] == list(range(1, 201))
    assert next(others) == {"X": 1}
    assert next(numbers) == {"X": 201}
    del numbers, others
    gc.collect()
    assert prolog.once("X = 1") == {"X": 1}


def test_leaving_a_query_runs_its_cleanup(prolog: Engine) -> None:
    numbers = prolog.query("setup_call_cleanup(true, between(1, inf, X), assertz(cleaned))")
    next(numbers)
    assert isinstance(numbers, Iterator)
    numbers.close()  # type: ignore[attr-defined]
    assert prolog.once("retract(cleaned)") == {}


def test_a_query_may_be_dropped_on_another_thread(prolog: Engine) -> None:
    kept = [prolog.query("setup_call_cleanup(true, between(1, inf, X), assertz(gone))")]
    next(kept[0])
    on_thread(kept.clear)
    assert prolog.once("retract(gone)") == {}


def test_a_query_is_continued_on_other_threads(prolog: Engine) -> None:
    # Messages are printed inside sig_atomic/1, where Prolog looks at its C stack.
    goal = "between(1, 30000, X), ( X mod 1000 =:= 0 -> print_message(silent, x) ; true )"
    numbers = prolog.query(goal)
    found = [next(numbers)["X"] for _ in range(3)]
    for _ in range(20):
        on_thread(lambda: found.extend(next(numbers)["X"] for _ in range(1000)))
    found += [row["X"] for row in numbers]
    assert found == list(range(1, 30_001))


def test_a_query_outlives_the_thread_that_began_it(prolog: Engine) -> None:
    begun: list[Iterator[dict[str, Value]]] = []

    def begin() -> None:
        begun.append(prolog.query("member(X, [1, 2, 3]), print_message(silent, x)"))
        assert next(begun[0]) == {"X": 1}

    on_thread(begin)
    assert list(begun[0]) == [{"X": 2}, {"X": 3}]


def test_two_threads_do_not_ask_one_query_at_a_time(prolog: Engine) -> None:
    slow = prolog.query("repeat, sleep(0.3)")
    raised: list[Exception] = []

    def ask() -> None:
        try:
            next(slow)
        except ValueError as error:
            raised.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "already executing" in str(raised[0])
    slow.close()  # type: ignore[attr-defined]


def test_a_cleanup_that_raises_is_told(prolog: Engine) -> None:
    numbers: Any = prolog.query("setup_call_cleanup(true, between(1, inf, X), throw(spilt))")
    next(numbers)
    with pytest.raises(PrologError, match="spilt"):
        numbers.close()


def test_a_hundred_queries_are_open_side_by_side(prolog: Engine) -> None:
    queries = [prolog.query("between(First, inf, X)", {"First": n}) for n in range(100)]
    for _ in range(10):
        firsts = [next(query)["X"] for query in queries]
    assert firsts == list(range(9, 109))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17, 100, 2000])
@pytest.mark.parametrize("kind", ["facts", "rules"])
def test_every_solution_comes_once(prolog: Engine, count: int, kind: str) -> None:
    prolog.once("retractall(count(_)), forall(between(1, N, X), assertz(count(X)))", {"N": count})
    goal = "count(X)" if kind == "facts" else "count(X), true"
    for _ in range(2):
        assert [row["X"] for row in prolog.query(goal)] == list(range(1, count + 1))


def test_facts_that_become_rules_are_asked_as_such(prolog: Engine) -> None:
    prolog.once("assertz(turning(1))")
    assert list(prolog.query("turning(X)")) == [{"X": 1}]
    prolog.once("assertz((turning(X) :- assertz(turned), X = 2))")
    assert list(prolog.query("turning(X)")) == [{"X": 1}, {"X": 2}]
    assert list(prolog.query("turned")) == [{}]
    prolog.once("retract((turning(_) :- assertz(turned), _))")
    assert list(prolog.query("turning(X)")) == [{"X": 1}]


def test_operators_declared_later_are_used(prolog: Engine, tmp_path: Path) -> None:
    with pytest.raises(errors.SyntaxError_):
        prolog.once("X = (a ===> b)", module="user")
    file = tmp_path / "operators.pl"
    file.write_text(":- op(700, xfx, ===>).\n")
    prolog.consult(file)
    assert prolog.once("X = (a ===> b)", module="user") == {"X": Term("===>", ("a", "b"))}


# Errors


@pytest.mark.parametrize(
    ("goal", "kind", "text"),
    [
        ("atom_length(_, _)", errors.InstantiationError, "not sufficiently instantiated"),
        ("atom_length(a, b)", errors.TypeError_, "`integer' expected"),
        ("sub_atom(a, b, _, _, _)", errors.TypeError_, "integer"),
        ("atom_length(a, _), number_codes(_, [])", errors.SyntaxError_, ""),
        ("no_such_predicate(1)", errors.ExistenceError, "no_such_predicate/1"),
        ("assertz(atom_length(a, b))", errors.PermissionError_, "No permission"),
        ("X is 1/0", errors.EvaluationError, "zero_divisor"),
        ("foo(", errors.SyntaxError_, "Syntax error"),
        ("a. b", errors.SyntaxError_, "Syntax error"),
        ("", errors.PrologError, ""),
        ("length(L, 100000000), atom(L)", errors.ResourceError, "Stack limit"),
        ("throw(my_own(1))", errors.PrologError, "my_own"),
        ("halt", errors.PermissionError_, "halt"),
        ("halt(3)", errors.PermissionError_, "Prolog runs inside Python"),
        ("abort", errors.PrologError, ""),
    ],
)
def test_prolog_errors(prolog: Engine, goal: str, kind: type[PrologError], text: str) -> None:
    for ask in (prolog.once, lambda goal: list(prolog.query(goal))):
        with pytest.raises(kind) as caught:
            ask(goal)
        assert text in str(caught.value)
    assert prolog.once("X = 1") == {"X": 1}


@pytest.mark.parametrize(
    "goal", ["X = 1 % one", "X = 1 /* one */", "% one\nX = 1", "X = 1.", "X = 1. \n"]
)
def test_a_goal_may_end_with_a_comment_or_a_full_stop(prolog: Engine, goal: str) -> None:
    assert prolog.once(goal) == {"X": 1}
    assert list(prolog.query(goal)) == [{"X": 1}]


@pytest.mark.parametrize("depth", [5_001, 12_000, 50_000])
@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("f(", ")"),
        ("(", ")"),
        ("[", "]"),
        ("[a|", "]"),
        ("{", "}"),
        ("_{a: ", "}"),
        ("- (", ")"),
        ("\\+ [", "]"),
        ("f('))', \")\", 0'), ", ")"),
        ("f( % )))) it's\n", "/* ( */) % ("),
        ("f(/* ' */ ", ")"),
    ],
)
def test_text_that_nests_too_deep_is_refused_before_it_is_read(
    prolog: Engine, opening: str, closing: str, depth: int
) -> None:
    goal = f"_ = {opening * depth}a{(closing + chr(10)) * depth} % the end"
    asks = [prolog.once, lambda goal: list(prolog.query(goal))]
    for ask in [*asks, lambda goal: on_thread(lambda: prolog.once(goal))]:
        with pytest.raises(errors.ResourceError, match="more than 5,000 levels deep") as caught:
            ask(goal)
        assert caught.value.formal == Term("resource_error", ("depth",))
    assert prolog.once("X = 1") == {"X": 1}


@pytest.mark.parametrize(
    ("opening", "closing"), [("f(", ")"), ("[", "]"), ("{", "}"), ("(", ")"), ("f(')', ", ")")]
)
def test_text_that_nests_as_deep_as_allowed_is_read(
    prolog: Engine, opening: str, closing: str
) -> None:
    text = opening * 5_000 + "X" + closing * 5_000
    assert prolog.once(f"_Deep = {text}, X = 1, ground(_Deep)") == {"X": 1}


@pytest.mark.parametrize("prefix", ["- ", "\\+ ", "a:", "1 - 2, ", "f(g), [], {}, "])
def test_operators_and_brackets_side_by_side_are_read_at_any_length(
    prolog: Engine, prefix: str
) -> None:
    assert prolog.once(f"_Long = ({prefix * 50_000}X), X = 1, ground(_Long)") == {"X": 1}


@pytest.mark.parametrize("text", ["f(" * 50_000, "'" + "(" * 50_000, "/* " + "(" * 50_000])
def test_text_that_never_ends_is_refused(prolog: Engine, text: str) -> None:
    with pytest.raises(PrologError):
        prolog.once(f"_ = {text}")
    assert prolog.once("X = 1") == {"X": 1}


def test_an_error_holds_what_was_thrown(prolog: Engine) -> None:
    with pytest.raises(PrologError) as caught:
        prolog.once('throw(oops(1, "text"))')
    assert caught.value.term == Term("oops", (1, "text"))


def test_an_error_tells_the_rules_file_and_line(prolog: Engine, tmp_path: Path) -> None:
    file = tmp_path / "rules.pl"
    file.write_text("\nouter(X) :- inner(X), true.\ninner(X) :-\n    atom_length(X, _), true.\n")
    prolog.consult(file)
    with pytest.raises(errors.InstantiationError) as caught:
        prolog.once("outer(_)", module="user")
    assert (caught.value.file, caught.value.line) == (str(file), 3)
    assert f"raised at {file}:3" in str(caught.value)
    with pytest.raises(errors.InstantiationError) as caught:
        prolog.once("atom_length(_, _)", module="user")
    assert caught.value.file is None


def test_an_error_in_cleanup_is_not_lost(prolog: Engine) -> None:
    with pytest.raises(PrologError):
        prolog.once("setup_call_cleanup(true, throw(first), throw(second))")


def test_loading_reports_every_problem(prolog: Engine, tmp_path: Path) -> None:
    file = tmp_path / "bad.pl"
    file.write_text("good(1).\nbad(.\nlone(X).\n:- no_such_directive.\n")
    with pytest.raises(LoadError) as caught:
        prolog.consult(file)
    problems = [(problem.line, problem.kind) for problem in caught.value.problems]
    assert (2, "error") in problems
    assert (3, "warning") in problems
    assert {problem.file for problem in caught.value.problems} == {str(file)}
    with pytest.raises(LoadError, match="does not exist"):
        prolog.consult(tmp_path / "missing.pl")


# Foreign predicates


def test_a_function_gets_values_and_returns_one(
    prolog: Engine, define: Callable[..., None]
) -> None:
    define("py_pair", 3, lambda left, right: Term("-", (left, [right])))
    assert prolog.once('py_pair(a, "b", X)', module=MODULE) == {"X": Term("-", ("a", ["b"]))}
    assert prolog.once("py_pair(a, b, c)", module=MODULE) is None


def test_more_than_ten_arguments(prolog: Engine, define: Callable[..., None]) -> None:
    define("py_sum", 13, lambda *numbers: sum(numbers))
    assert prolog.once("py_sum(1,2,3,4,5,6,7,8,9,10,11,12,X)", module=MODULE) == {"X": 78}


def test_an_exception_keeps_its_identity_and_traceback(
    prolog: Engine, define: Callable[..., None]
) -> None:
    raised = LookupError("lost é")

    def failing_effect(_: Value) -> Value:
        raise raised

    define("py_failing", 2, failing_effect)
    for goal in (
        "py_failing(1, _)",
        "catch(py_failing(1, _), E, throw(E))",
        "thread_create(py_failing(1, _), T), thread_join(T, exception(E)), throw(E)",
        "concurrent(2, [py_failing(1, _), true], [])",
    ):
        with pytest.raises(LookupError) as caught:
            prolog.once(goal, module=MODULE)
        assert caught.value is raised
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert frames[-1].name == "failing_effect"
    with pytest.raises(LookupError):
        list(prolog.query("py_failing(1, _)", module=MODULE))


def test_prolog_can_catch_a_python_exception(prolog: Engine, define: Callable[..., None]) -> None:
    def refuse() -> Value:
        raise ValueError("no")

    define("py_refuse", 1, refuse)
    solution = prolog.once(
        "catch(py_refuse(_), error(python_error(_, Class, Text), _), true)", module=MODULE
    )
    assert solution == {"Class": "ValueError", "Text": "ValueError: no"}


def test_system_exit_passes_through(prolog: Engine, define: Callable[..., None]) -> None:
    def leave() -> Value:
        raise SystemExit(3)

    define("py_leave", 1, leave)
    with pytest.raises(SystemExit):
        prolog.once("py_leave(_)", module=MODULE)


@pytest.mark.parametrize("result", [None, (1,), object()])
def test_a_result_without_counterpart_is_a_type_error(
    prolog: Engine, define: Callable[..., None], result: Any
) -> None:
    define("py_odd", 1, lambda: result)
    with pytest.raises(TypeError, match="has no Prolog counterpart"):
        prolog.once("py_odd(_)", module=MODULE)


def test_queries_nest_in_foreign_predicates(prolog: Engine, define: Callable[..., None]) -> None:
    def depth(number: int) -> Value:
        if number == 0:
            return 0
        solution = prolog.once("py_depth(N, X)", {"N": number - 1}, MODULE)
        assert solution is not None
        below = solution["X"]
        assert isinstance(below, int)
        return below + 1

    def numbers(last: int) -> Value:
        return [solution["X"] for solution in prolog.query("between(1, N, X)", {"N": last})]

    define("py_depth", 2, depth)
    define("py_numbers", 2, numbers)
    assert prolog.once("py_depth(30, X)", module=MODULE) == {"X": 30}
    assert prolog.once("py_numbers(50, X)", module=MODULE) == {"X": list(range(1, 51))}
    assert prolog.once(
        "findall(py_numbers(50, _), between(1, 20, _), Goals), concurrent(20, Goals, [])",
        module=MODULE,
    )


# Threads


def test_prolog_threads_wait_in_python_side_by_side(
    prolog: Engine, define: Callable[..., None]
) -> None:
    def nap(number: int) -> Value:
        time.sleep(0.2)
        return number

    define("py_nap", 2, nap)
    with Took() as took:
        solution = prolog.once(
            "findall(py_nap(N, _), between(1, 10, N), Goals), concurrent(10, Goals, [])",
            module=MODULE,
        )
    assert solution is not None
    assert took.seconds < 0.5


def test_eight_python_threads_ask_at_once(prolog: Engine) -> None:
    wrong: list[object] = []

    def ask(number: int) -> None:
        for _ in range(500):
            if prolog.once("X is N * 2", {"N": number}) != {"X": number * 2}:
                wrong.append(number)
            if len(list(prolog.query("between(1, 20, X)"))) != 20:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_thread_that_ends_leaves_no_engine(prolog: Engine) -> None:
    def engines() -> int:
        solution = prolog.once("aggregate_all(count, thread_property(_, id(_)), N)")
        assert solution is not None
        count = solution["N"]
        assert isinstance(count, int)
        return count

    def work() -> None:
        prolog.once("true")
        kept.append(prolog.query("repeat"))
        next(kept[-1])

    kept: list[Iterator[dict[str, Value]]] = []
    before = engines()
    for _ in range(40):
        on_thread(work)
    assert engines() >= 40
    kept.clear()
    deadline = time.monotonic() + 5
    while engines() > before + 16 and time.monotonic() < deadline:  # those ended on their own
        time.sleep(0.01)
    assert engines() <= before + 16  # kept for the next iterations


@pytest.mark.parametrize("times", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_memory_stays_flat(prolog: Engine, define: Callable[..., None], times: int) -> None:
    define("py_same", 2, lambda value: value)

    def ask(times: int) -> None:
        for number in range(times):
            prolog.once("py_same([N, f(N)], X)", {"N": f"atom{number}"}, MODULE)
            for _ in prolog.query("member(X, L)", {"L": [number, PrologString("s")]}):
                pass

    def kilobytes() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() // 1024

    ask(5000)
    prolog.once("garbage_collect_atoms")
    before = kilobytes()
    ask(times)  # two queries each
    prolog.once("garbage_collect_atoms")
    assert kilobytes() - before < 8000


# Ctrl-C


@pytest.mark.parametrize(
    "goal",
    [
        "repeat, fail",
        "sleep(5)",
        "catch((repeat, fail), _, true)",
        "thread_get_message(never)",
        "py_nap(X)",
        "py_nested(X)",
        "thread_create(sleep(0.6), T), thread_join(T, _)",
    ],
)
def test_ctrl_c_ends_a_query(prolog: Engine, define: Callable[..., None], goal: str) -> None:
    def nap() -> Value:
        time.sleep(5)
        return "done"

    def nested() -> Value:
        prolog.once("repeat, fail")
        return "done"

    define("py_nap", 1, nap)
    define("py_nested", 1, nested)
    for ask in (prolog.once, lambda *args: list(prolog.query(*args))):
        sigint_after(0.1)
        with Took() as took, pytest.raises(KeyboardInterrupt):
            ask(goal, {}, MODULE)
        assert took.seconds < 1.0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert prolog.once("X = 1") == {"X": 1}


def test_ctrl_c_is_never_lost(prolog: Engine, define: Callable[..., None]) -> None:
    define("py_quick", 1, lambda: "done")
    for number in range(60):
        sigint_after(0.01 + number / 10_000)
        with pytest.raises(KeyboardInterrupt):
            prolog.once("repeat, py_quick(_), fail", module=MODULE)
    assert prolog.once("X = 1") == {"X": 1}


def test_the_first_ctrl_c_asks_an_operation_to_undo(
    prolog: Engine, define: Callable[..., None]
) -> None:
    cancelled = threading.Event()

    def work() -> Value:
        return "undone" if cancelled.wait(5) else "done"

    define("py_work", 1, work)
    sigint_after(0.1)
    solution = prolog.once("py_work(X)", module=MODULE, on_interrupt=cancelled.set)
    assert solution == {"X": "undone"}


def test_the_second_ctrl_c_leaves_at_once(prolog: Engine, define: Callable[..., None]) -> None:
    release = threading.Event()
    define("py_stuck", 1, lambda: "done" if release.wait(5) else "late")
    pressed: list[int] = []
    sigint_after(0.1, times=2, gap=0.1)
    with Took() as took, pytest.raises(KeyboardInterrupt):
        prolog.once("py_stuck(X)", module=MODULE, on_interrupt=lambda: pressed.append(1))
    release.set()
    assert pressed == [1]
    assert took.seconds < 0.5


def test_an_operation_raises_where_it_was_asked(
    prolog: Engine, define: Callable[..., None]
) -> None:
    def broken() -> Value:
        raise LookupError("broken")

    define("py_broken", 1, broken)
    with pytest.raises(LookupError, match="broken"):
        prolog.once("py_broken(_)", module=MODULE, on_interrupt=lambda: None)
