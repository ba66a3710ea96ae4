"""Values survive the way to Prolog and back, and print as Prolog prints them."""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unifyweaver_py._engine import engine
from unifyweaver_py._errors import ConversionError, PrologError, ResourceError
from unifyweaver_py._terms import PrologString, TaggedDict, Term, Value, Var, write_term

TEXT = st.text(st.characters(), max_size=20)  # NUL and lone surrogates too
KEYS = st.one_of(TEXT, st.integers(-(2**56), 2**56 - 1))
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
        st.dictionaries(KEYS, inner, max_size=4),
        st.builds(TaggedDict, TEXT, st.dictionaries(KEYS, inner, max_size=3)),
        st.builds(
            Term,
            TEXT.filter(lambda name: name not in ("[|]", "dict")),
            st.lists(inner, max_size=3).map(tuple),
        ),
    ),
    max_leaves=15,
)
VARIABLES = st.sampled_from([Var("A"), Var("B"), Var("C")])
SHAPES: st.SearchStrategy[Value] = st.recursive(
    st.one_of(VARIABLES, st.sampled_from(["a", 1])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.builds(TaggedDict, st.just("t"), st.dictionaries(st.integers(0, 5), inner, max_size=3)),
        st.builds(Term, st.just("f"), st.lists(inner, min_size=1, max_size=4).map(tuple)),
    ),
    max_leaves=12,
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


def same(left: Value, right: Value) -> bool:  # noqa: PLR0911 one a type
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    match left, right:
        case Term(), Term():
            return left.name == right.name and same(list(left.args), list(right.args))
        case list(), list():
            return len(left) == len(right) and all(map(same, left, right))
        case TaggedDict(), TaggedDict() if not same(left.tag, right.tag):
            return False
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


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_every_value_survives_an_iteration_and_a_foreign_predicate(value: Value) -> None:
    rows = list(engine().query("member(Y, [X, X]), _Z = Y", {"X": value}))
    assert [same(row["Y"], value) for row in rows] == [True, True]
    engine().register("terms_test", "py_same", 2, lambda seen: seen)
    solution = engine().once("py_same(X, Y), X =@= Y, py_same(X, X)", {"X": value}, "terms_test")
    assert solution is not None
    assert same(solution["Y"], value)


@given(VALUES)
@settings(max_examples=400, deadline=None)
def test_prolog_holds_exactly_what_its_own_reader_reads(value: Value) -> None:
    """So that the two directions can't be wrong in the same way."""
    text = PrologString(codes(value))
    solution = engine().once(
        "term_string(Read, Text), Read =@= Value", {"Text": text, "Value": value}
    )
    assert solution is not None, text
    assert same(solution["Read"], value)


def codes(value: Value) -> str:  # noqa: PLR0911 one a type
    """Prolog text for a value, written by other means than write_term."""
    match value:
        case TaggedDict():
            return codes(value.tag) + codes(dict(value))[1:]
        case dict():
            return (
                "_{"
                + ",".join(f"{codes(key)}:({codes(part)})" for key, part in value.items())
                + "}"
            )
        case list():
            return "[" + ",".join(f"({codes(part)})" for part in value) + "]"
        case Term():
            return f"{codes(value.name)}({','.join(f'({codes(part)})' for part in value.args)})"
        case str():
            mark = '"' if isinstance(value, PrologString) else "'"
            return mark + "".join(map(code, value)) + mark
        case Fraction():
            return f"{value.numerator}r{value.denominator}"
        case float():
            return {math.inf: "1.0Inf", -math.inf: "-1.0Inf"}.get(value, f"{value:.17e}")
        case _:
            return str(value)


def code(char: str) -> str:
    """A character within quotes; Prolog's reader takes only some by their number."""
    return f"\\x{ord(char):x}\\" if char.isascii() else char


@given(SHAPES)
@settings(max_examples=300, deadline=None)
def test_variables_are_shared_as_they_were(shape: Value) -> None:
    solution = engine().once(
        "term_variables(X, Vs), length(Vs, Number), copy_term(X, Y), X =@= Y", {"X": shape}
    )
    assert solution is not None
    names = list(dict.fromkeys(variables(shape)))
    assert solution["Number"] == len(names)
    found = list(variables(solution["Y"]))
    first = {variable: names[number] for number, variable in enumerate(dict.fromkeys(found))}
    assert [first[variable] for variable in found] == list(variables(shape))


def variables(value: Value) -> Iterator[Var]:
    """The variables of a value, each as often as it is there; of dicts in the order of their keys."""
    match value:
        case Var():
            yield value
        case Term():
            for part in value.args:
                yield from variables(part)
        case list():
            for part in value:
                yield from variables(part)
        case TaggedDict():
            for _, part in sorted(value.items()):
                yield from variables(part)


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
    solution = engine().once("X is nan, X =\\= X", {})
    assert solution is not None
    assert isinstance(solution["X"], float)
    assert math.isnan(solution["X"])


@given(st.floats(allow_nan=False))
def test_every_float_survives_to_the_bit(value: float) -> None:
    result = through_prolog(value)
    assert isinstance(result, float)
    assert struct.pack("d", result) == struct.pack("d", value)


@pytest.mark.parametrize("bits", [60, 63, 64, 65, 4095, 4096, 4097, 8192, 12_288, 1_000_000])
def test_integers_of_any_size(bits: int) -> None:
    for value in (2**bits, 2**bits - 1, -(2**bits), -(2**bits) - 1, 3**bits, 10**bits):
        solution = engine().once("Y = X, Z is X + 1", {"X": value})
        assert solution == {"Y": value, "Z": value + 1}
        if bits > 1000:
            break


def test_rationals_of_any_size() -> None:
    value = Fraction(3**50_000, -(2**50_001))
    solution = engine().once("Y = X, Z is X * 2", {"X": value})
    assert solution == {"Y": value, "Z": value * 2}


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "😀", "\ud800", "\x1b", "é" * 1000])
def test_any_unicode(text: str) -> None:
    assert same(through_prolog([text, PrologString(text)]), [text, PrologString(text)])


@pytest.mark.parametrize("kind", [str, PrologString])
@pytest.mark.parametrize("part", ["é", "a\0", "😀"])
def test_text_of_ten_megabytes(kind: type[str], part: str) -> None:
    text = kind(part * (10_000_000 // len(part.encode())))
    solution = engine().once("Y = X, string_length(X, N)", {"X": text})
    assert solution is not None
    assert solution["N"] == len(text)
    assert same(solution["Y"], text)


def test_lists_of_a_million() -> None:
    numbers = list(range(1_000_000))
    assert engine().once("Y = X, length(X, N)", {"X": numbers}) == {"Y": numbers, "N": 1_000_000}
    kinds: list[Value] = ["a", PrologString("b"), 2**70, 1.5, Term("f", (1,)), [], Fraction(1, 3)]
    mixed = kinds * 30_000
    assert through_prolog(mixed) == mixed


def nested(depth: int) -> Value:
    value: Value = "end"
    for _ in range(depth):
        value = [Term("f", (value, {"k": 1}))]
    return value


def test_terms_nested_ten_thousand_deep() -> None:
    solution = engine().once("Y = X, copy_term(X, Z), X =@= Z, _Same = Z", {"X": nested(10_000)})
    assert solution is not None
    result = solution["Y"]
    depth = 0
    while isinstance(result, list):
        (term,) = result
        assert isinstance(term, Term)
        result = term.args[0]
        depth += 1
    assert (depth, result) == (10_000, "end")


@pytest.mark.parametrize(
    "use", [lambda x, y: x == y, lambda x, y: str(x), lambda x, y: repr(x), lambda x, y: hash(x)]
)
def test_what_python_can_not_do_with_deep_terms_it_says(
    use: Callable[[object, object], object],
) -> None:
    left, right = Term("g", (nested(10_000),)), Term("g", (nested(10_000),))
    with pytest.raises(RecursionError):
        use(left, right)


@pytest.mark.parametrize("goal", ["term_to_atom(_X, _)", "format(atom(_), '~p', [_X])"])
def test_what_prolog_can_not_do_with_deep_terms_it_says(goal: str) -> None:
    def ask() -> None:
        for query in (engine().once, lambda *given: list(engine().query(*given))):
            with pytest.raises(ResourceError, match="C-stack limit"):
                query(goal, {"_X": nested(30_000)})

    ask()
    with ThreadPoolExecutor(1) as other:
        other.submit(ask).result()


def test_a_deep_term_may_be_thrown() -> None:
    with pytest.raises(PrologError) as caught:
        engine().once("throw(X)", {"X": Term("deep", (nested(30_000),))})
    assert isinstance(caught.value.term, Term)
    assert caught.value.term.name == "deep"


def test_dicts_of_the_deepest_kind() -> None:
    value: Value = 1
    for _ in range(10_000):
        value = {"k": value}
    result = through_prolog(value)
    for _ in range(10_000):
        assert isinstance(result, dict)
        result = result["k"]
    assert result == 1


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


def holding_itself() -> Iterator[Value]:
    cyclic: list[Value] = [1]
    cyclic.append(cyclic)
    yield cyclic
    mapping: dict[str | int, Value] = {}
    mapping["self"] = [mapping]
    yield mapping
    part: list[Value] = []
    term = Term("f", (part,))
    part.append(term)
    yield term


@pytest.mark.parametrize("value", list(holding_itself()), ids=["list", "dict", "term"])
def test_values_that_hold_themselves_are_refused(value: Value) -> None:
    with pytest.raises(ConversionError, match="holds itself"):
        engine().once("X = Y", {"X": value})
    with pytest.raises(ConversionError, match="holds itself"):
        list(engine().query("X = Y", {"X": value}))


def test_a_value_may_be_there_many_times() -> None:
    part: list[Value] = [1]
    twice = [part, part, Term("f", (part, [part]))]
    assert through_prolog(twice) == twice


def test_a_tagged_dict_keeps_its_tag() -> None:
    solution = engine().once("X = point{x: 1, 7: T}, T = in{}")
    assert solution is not None
    assert same(solution["X"], TaggedDict("point", {"x": 1, 7: TaggedDict("in", {})}))
    assert str(Term("f", (TaggedDict("point", {"x": 1}),))) == "f(point{x:1})"
    one, other = TaggedDict("point", {"x": 1}), TaggedDict("line", {"x": 1})
    assert one != other
    assert one != {"x": 1}
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize("key", [True, PrologString("k"), 1.5, None, 2**56, -(2**56) - 1, 2**70])
def test_keys_that_no_dict_has_are_refused(key: object) -> None:
    with pytest.raises((TypeError, ConversionError), match="a key of a dict must be"):
        engine().once("X = Y", {"X": {key: 1}})  # type: ignore[dict-item]


def test_a_term_works_in_match_and_as_a_key() -> None:
    term = Term("step", ("deploy", ["a", {"b": 1}]))
    assert {term: 1}[Term("step", ("deploy", ["a", {"b": 1}]))] == 1
    match term:
        case Term("step", (name, [first, _])):
            assert (name, first) == ("deploy", "a")


def test_bindings_may_name_each_other() -> None:
    goal = Term("=", (Var("X"), Var("Y")))
    assert engine().once(goal, {"X": Var("Y"), "Y": 1}) == {}
    assert engine().once("X = f(Z, Y)", {"X": Term("f", (Var("V"), 1)), "Y": Var("V")}) == {"Z": 1}


@pytest.mark.parametrize(
    "value",
    [list(range(200_000)), PrologString("x" * 3_000_000), 1 << 40_000_000, ["é" * 9] * 200_000],
    ids=["list", "string", "integer", "atoms"],
)
def test_a_value_that_does_not_fit_is_an_error(value: Value) -> None:
    prolog = engine()
    for ask in (prolog.once, lambda goal, bindings: list(prolog.query(goal, bindings))):
        ask("set_prolog_flag(stack_limit, 2000000)", {})
        try:
            with pytest.raises(ResourceError, match=r"Stack limit \(1.9Mb\) exceeded"):
                ask("X = Y", {"X": value})
            assert prolog.once("X = 1") == {"X": 1}
        finally:
            ask("set_prolog_flag(stack_limit, 1000000000)", {})


def test_an_exhausted_stack_is_an_error() -> None:
    with pytest.raises(ResourceError):
        engine().once("length(L, 100000000), copy_term(L, M), foldl([X,A,f(X,A)]>>true, M, 0, _)")
