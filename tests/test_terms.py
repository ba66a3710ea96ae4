"""Values survive the way to Prolog and back, and print as Prolog prints them."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unifyweaver_py._engine import engine
from unifyweaver_py._errors import ConversionError, ResourceError
from unifyweaver_py._terms import PrologString, Term, Value, Var, write_term

TEXT = st.text(st.characters(), max_size=20)
ATOMIC = st.one_of(
    TEXT,
    TEXT.map(PrologString),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.fractions().filter(lambda value: value.denominator != 1),
    st.floats(allow_nan=False),
)
VALUES: st.SearchStrategy[Value] = st.recursive(
    ATOMIC,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(TEXT, st.integers(0, 1000)), inner, max_size=4),
        st.builds(
            Term,
            TEXT.filter(lambda name: name not in ("[|]", "dict")),
            st.lists(inner, max_size=3).map(tuple),
        ),
    ),
    max_leaves=15,
)
OPERATOR_TERMS: st.SearchStrategy[Value] = st.recursive(
    st.one_of(
        st.sampled_from(["a", "Z", "-", "\\+", "is", "[]", "{}", ";", "|", ",", "é", "", "a b"]),
        st.integers(-3, 3),
        st.just([]),
        st.text(max_size=20).map(PrologString),
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda name, left, right: Term(name, (left, right)),
            st.sampled_from([*"-+*/:,;^|=", "is", "mod", "->", ":-", "**", "=..", "foo"]),
            inner,
            inner,
        ),
        st.builds(
            lambda name, arg: Term(name, (arg,)),
            st.sampled_from(["-", "+", "\\", "\\+", ":-", "dynamic", "{}", "foo"]),
            inner,
        ),
        st.lists(inner, max_size=2),
    ),
    max_leaves=8,
)


def through_prolog(value: Value) -> Value:
    solution = engine().once("X = Y", {"X": value})
    assert solution is not None
    return solution["Y"]


def same(left: Value, right: Value) -> bool:
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    match left, right:
        case Term(), Term():
            return left.name == right.name and same(list(left.args), list(right.args))
        case list(), list():
            return len(left) == len(right) and all(map(same, left, right))
        case dict(), dict():
            return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
        case float(), float():
            return math.copysign(1, left) == math.copysign(1, right) and left == right
        case _:
            return left == right


@given(VALUES)
@settings(max_examples=400, deadline=None)
def test_every_value_survives_both_ways(value: Value) -> None:
    assert same(through_prolog(value), value)


@given(OPERATOR_TERMS)
@settings(max_examples=400, deadline=None)
def test_prolog_reads_what_str_prints(value: Value) -> None:
    solution = engine().once("term_string(Read, Text)", {"Text": PrologString(write_term(value))})
    assert solution is not None
    assert same(solution["Read"], value), write_term(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Term("-", (Term("-", ("a", "b")), "c")), "a-b-c"),
        (Term("-", ("a", Term("-", ("b", "c")))), "a-(b-c)"),
        (Term(":", ("m", Term("/", ("p", 2)))), "m:p/2"),
        (Term("\\+", (Term(",", ("a", "b")),)), "\\+ (a,b)"),
        (Term("=", ("a", Term("\\+", ("b",)))), "a=(\\+b)"),
        (Term("-", (1,)), "- 1"),
        (Term("-", (1, -1)), "1- -1"),
        (Term("f", (":-", "hello world", PrologString('"\n'))), 'f(:-,\'hello world\',"\\"\\n")'),
        (Term("is", (Var("X"), Term("+", (1, 2)))), "X is 1+2"),
        (Term("[|]", ("a", Var("T"))), "[a|T]"),
        (["[]", [], "{}"], "['[]',[],{}]"),
        (Fraction(1, 3), "1r3"),
        (1e100, "1.0e+100"),
    ],
)
def test_str_is_what_writeq_prints(value: Value, text: str) -> None:
    assert write_term(value) == text
    if not isinstance(value, Var) and "Var(" not in repr(value):
        printed = engine().once("format(string(Text), '~q', [Value])", {"Value": value})
        assert printed == {"Text": text}


def test_the_operators_printed_are_those_of_prolog() -> None:
    from unifyweaver_py._terms import _INFIX, _PREFIX

    for table, kinds in ((_INFIX, ("xfx", "xfy", "yfx")), (_PREFIX, ("fx", "fy"))):
        for name, (priority, kind) in table.items():
            found = engine().once(
                "current_op(P, K, Name), memberchk(K, Kinds)",
                {"Name": name, "Kinds": list(kinds)},
                module="system",
            )
            assert found == {"P": priority, "K": kind}, name


def test_booleans_become_atoms() -> None:
    assert through_prolog([True, False]) == ["true", "false"]


@pytest.mark.parametrize("value", [None, (1, 2), b"x", {1}, [None], {None: 1}])
def test_what_has_no_counterpart_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        engine().once("X = Y", {"X": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [math.inf, -math.inf, 5e-324, 1.7976931348623157e308, -0.0])
def test_extreme_floats(value: float) -> None:
    assert same(through_prolog(value), value)


def test_nan() -> None:
    result = through_prolog(math.nan)
    assert isinstance(result, float)
    assert math.isnan(result)


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "😀", "\ud800", "\x1b", "é" * 1000])
def test_any_unicode(text: str) -> None:
    assert same(through_prolog([text, PrologString(text)]), [text, PrologString(text)])


def test_text_of_ten_megabytes() -> None:
    text = PrologString("é" * 5_000_000)
    assert through_prolog(text) == text


def test_a_list_of_a_million() -> None:
    numbers = list(range(1_000_000))
    assert through_prolog(numbers) == numbers


def test_terms_nested_ten_thousand_deep() -> None:
    value: Value = "end"
    for _ in range(10_000):
        value = [Term("f", (value, {"k": 1}))]
    result = through_prolog(value)
    depth = 0
    while isinstance(result, list):
        (term,) = result
        assert isinstance(term, Term)
        result = term.args[0]
        depth += 1
    assert (depth, result) == (10_000, "end")


def test_variables_stay_shared() -> None:
    solution = engine().once("X = f(A, B, A)")
    assert solution is not None
    match solution["X"]:
        case Term("f", (Var() as first, Var() as second, Var() as third)):
            assert first == third != second
            assert solution["A"] == first
        case other:
            pytest.fail(f"unexpected {other}")
    shared = engine().once("X = f(P, Q), P = 1", {"X": Term("f", (Var("V"), Var("V")))})
    assert shared == {"P": 1, "Q": 1}


def test_a_partial_list_is_a_term() -> None:
    solution = engine().once("X = [a, b|T], T = c")
    assert solution == {"X": Term("[|]", ("a", Term("[|]", ("b", "c")))), "T": "c"}


def test_a_zero_argument_compound_is_not_an_atom() -> None:
    assert engine().once("X = f()") == {"X": Term("f")}


@pytest.mark.parametrize("goal", ["X = f(X)", "X = [a|X]"])
def test_cyclic_terms_are_refused(goal: str) -> None:
    with pytest.raises(ConversionError, match="cyclic"):
        engine().once(goal)


def test_a_stream_is_refused() -> None:
    with pytest.raises(ConversionError, match="stream"):
        engine().once("current_output(S)")


def test_a_tagged_dict_is_refused() -> None:
    with pytest.raises(ConversionError, match="tag"):
        engine().once("X = point{x: 1}")


def test_a_term_works_in_match_and_as_a_key() -> None:
    term = Term("step", ("deploy", ["a", {"b": 1}]))
    assert {term: 1}[Term("step", ("deploy", ["a", {"b": 1}]))] == 1
    match term:
        case Term("step", (name, [first, _])):
            assert (name, first) == ("deploy", "a")


def test_an_exhausted_stack_is_an_error() -> None:
    with pytest.raises(ResourceError):
        engine().once("length(L, 100000000), copy_term(L, M), foldl([X,A,f(X,A)]>>true, M, 0, _)")
