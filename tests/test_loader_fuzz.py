"""Declaration files with damage of every kind: a file is applied whole, or nothing happens."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unifyweaver_py as uw
from unifyweaver_py._engine import Engine, engine

SECONDS = 2.0  # that a load may take
TIMES = [
    pytest.param(1_500, id="1500 files"),
    pytest.param(20_000, id="20000 files", marks=pytest.mark.soak),
]
MODULE = "declared"

WATCHING = Path(__file__).parent / "prolog" / "declared.pl"

BEFORE = """
:- declare_service(web, [port(1), transport(ssh), host('before.example')]).
:- declare_service_hosts(web, [host_config('before.example', [])]).
:- declare_lifecycle_hook(web, pre_deploy, health_check).
:- declare_service(before, []).
critical(before).
"""

SEEDS = [
    """% The web service.
:- use_module(library(deployment_glue)).

:- declare_service(web, [host('a.example'), port(8080), transport(ssh), env(['A'-b, 'C'-"d e"])]).
:- declare_service_sources(web, ['**', \\+ '*.key']).
:- declare_deploy_method(web, ssh, [user(deploy), agent(false)]).
:- declare_service_hosts(web, [host_config('api1.example.com', [user('deploy')]), host_config(b, [])]).
:- declare_lifecycle_hook(web, pre_deploy, custom('make "all"')).

critical(web).
watched(Service, Host) :- critical(Service), service_host(Service, Host, _).
""",
    """:- encoding(utf8).
/* Two services, and
   rules about them. */
:- declare_service(api, [port(0x1f90), start_command("exec ./run --port $PORT"), health_endpoint('/health')]).
:- declare_deploy_method(api, local, [remote_dir('/srv/größe')]).
:- declare_lifecycle_hook(api, post_deploy, run_once(warm_cache)).
:- declare_lifecycle_hook(api, on_health_failure, drain_connections).
:- dynamic(region/2).
:- discontiguous region/2.
:- declare_service('db-1', []).
region(eu, [a, "b", `c`, 0'd, 1.5e3, -7]).
nearby(X, Y) :- region(R, Xs), member(X, Xs), member(Y, Xs), X \\== Y, \\+ R = us.
count(N) :- aggregate_all(count, nearby(_, _), N), ( N > 3 -> true ; N =:= 0 ).
largest(Port) :- findall(P, (service_config(_, Os), memberchk(port(P), Os)), Ps), max_list(Ps, Port).
""",
    """:- declare_service_hosts(web, []).
:- declare_service(web, []).
:- declare_service(web, [port(2)]).
empty([]). empty({}). empty(''). empty("").
odd(a:b, - 1, -(1), [x|T], T, 'it''s', "\\x41\\\\n", {a, b}, f(;), (:- c)).
""",
    "critical(nobody).\n",
]

RUN = [
    "shell('touch @MARK@')",
    "open('@MARK@', write, _)",
    "flag(ran_away, N, N + 1)",
    "assertz(user:ran_away)",
    "asserta(ran_away(1))",
    "halt",
    "op(700, xfx, ===>)",
    "set_prolog_flag(double_quotes, codes)",
]
TOKENS = [
    *RUN,
    *(f":- {goal}.\n" for goal in RUN),
    *(f":- initialization({goal}).\n" for goal in RUN),
    *(f", {goal}" for goal in RUN),
    *(f"evil :- {goal}.\n" for goal in RUN),
    *(f"{{|string||{goal}|}}" for goal in RUN[:1]),
    *(f":- if({goal}).\n" for goal in RUN[:2]),
    *(f":- declare_service(web, [port(X)]), {goal}.\n" for goal in RUN[2:4]),
    *(f"user:term_expansion(_, _) :- {goal}.\n" for goal in RUN[2:4]),
    *"()[]{}|,.;:!'\"`\\_-+*/%#$@^~&?=<>0aZ \n\t",
    *(
        "f(",
        "f()",
        "()",
        "[|",
        "{}",
        "''",
        '""',
        "``",
        "/*",
        "*/",
        "%",
        ". ",
        ".\n",
        ".(",
        "..",
        "\r\n",
    ),
    *(
        ":- ",
        "?- ",
        "-->",
        "=>",
        ":=",
        "*->",
        "\\+ ",
        "===>",
        "dynamic ",
        "table ",
        "$ ",
        "@(",
        "//",
        "**",
    ),
    *(
        "0'",
        "0''",
        "0'\\",
        "1r3",
        "1e",
        "1e400",
        "1.0Inf",
        "nan",
        "1.5NaN",
        "16'ff",
        "37'z",
        "0x",
        "0b2",
        "1_000",
    ),
    *(
        "1_ ",
        "1_\n",
        "9" * 3_999,
        "9" * 4_001,
        "0x" + "f" * 5_000,
        "1" + "_1" * 3_000,
        "99 " * 2_000,
    ),
    *(
        "X",
        "_",
        "X:",
        "user:",
        "system:",
        "_:",
        "call(X)",
        "X(a)",
        "_{a: 1}",
        "p{}.q",
        "[H|T]",
        "X.put(a)",
    ),
    *(
        "é",
        "ß",
        "中",
        "\u200b",
        "\u2028",
        "\ufeff",
        "\ud7ff",
        "😀",
        "\x00",
        "\x01",
        "\x7f",
        "\xa0",
        "\u0300",
    ),
    *("\\x41\\", "'\\", "\\uD800", "\\U00110000", "\\x110000\\", "\\z", "\\\n", "\\c\n"),
    *("[" * 600, "(" * 501, "f(" * 40_000, "- " * 2_000, "[a|" * 499, "a:" * 600, "{" * 100_000),
    *(
        "end_of_file.\n",
        "end_of_file",
        "begin_of_file.\n",
        ":- include(other).\n",
        ":- module(m, []).\n",
    ),
    *(
        ":- dynamic region/2.\n",
        ":- dynamic a/0, b/65.\n",
        ":- use_module(library(process)).\n",
        ":- else.\n",
    ),
    *(
        "declare_service(web, [port(9)]).\n",
        ":- declare_service(web, [port(9)]).\n",
        ":- declare_service",
    ),
    *(
        ":- declare_service_hosts(web, [host_config(a, []), host_config('A', [])]).\n",
        "service_config(a, b).\n",
    ),
    *(
        "term_expansion(a, b).\n",
        "a --> b.\n",
        "region(x, y).\n",
        "critical(X) :- critical(X).\n",
        "a :- a, !.\n",
    ),
]
TOKEN = re.compile(r"\w+|\s+|'[^'\n]*'|\"[^\"\n]*\"|[^\w\s]")

Change = tuple[str, int, int, Any]

CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.tuples(
        st.sampled_from(["delete", "duplicate", "swap", "truncate", "lines"]),
        st.integers(0, 1_000),
        st.integers(0, 1_000),
        st.none(),
    ),
    st.tuples(
        st.sampled_from(["insert", "replace"]),
        st.integers(0, 1_000),
        st.just(0),
        st.sampled_from(TOKENS) | st.text(max_size=4),
    ),
    st.tuples(
        st.just("bytes"), st.integers(0, 1_000), st.just(0), st.binary(min_size=1, max_size=4)
    ),
)
DAMAGED = st.tuples(st.sampled_from(SEEDS), st.lists(CHANGES, min_size=1, max_size=5))


def changed(parts: list[bytes], change: Change) -> list[bytes]:
    """The tokens of a file after one change; places are taken modulo their number."""
    kind, first, second, what = change
    one, other = sorted((first % (len(parts) + 1), second % (len(parts) + 1)))
    match kind:
        case "delete":
            return parts[:one] + parts[one + 1 :]
        case "lines":
            return parts[:one] + parts[other:]
        case "duplicate":
            return parts[:other] + parts[one:]
        case "swap":
            return (
                parts[:one]
                + parts[other : other + 1]
                + parts[one + 1 : other]
                + (parts[one : one + 1] + parts[other + 1 :])
            )
        case "truncate":
            return parts[: first % (len(parts) + 1)]
        case _:
            place = first % (len(parts) + 1)
            data = what if isinstance(what, bytes) else what.encode("utf-8", "surrogatepass")
            return [*parts[:place], data, *parts[place + (kind == "replace") :]]


def damaged(seed: str, changes: list[Change]) -> bytes:
    parts = [token.encode() for token in TOKEN.findall(seed)]
    for change in changes:
        parts = changed(parts, change)
    return b"".join(parts)


class World:
    """Three origins that declare, one of which is the file under test."""

    def __init__(self, folder: Path, prolog: Engine) -> None:
        self.prolog = prolog
        self.file = folder / "services.pl"
        self.mark = folder / "mark"
        self.others = folder / "others.pl"
        self.others.write_text(BEFORE)
        uw.load(self.others)
        uw.declare_service("api", port=3)

    def ask(self, goal: str, **bindings: str) -> dict[str, Any] | None:
        return self.prolog.once(goal, bindings, module=MODULE)

    def declared(self, what: str = "Text") -> str:
        """All that is declared; as "Content", without what grows with each load."""
        solution = self.ask("declared(Text, Content)")
        assert solution is not None
        return str(solution[what])

    def load(self, data: bytes) -> uw.PrologError | None:
        """What it was refused with, if it was."""
        self.file.write_bytes(data.replace(b"@MARK@", str(self.mark).encode()))
        began = time.monotonic()
        try:
            uw.load(self.file)
        except uw.PrologError as error:
            return error
        finally:
            assert time.monotonic() - began < SECONDS
        return None

    def check(self, seed: str, data: bytes) -> None:
        assert self.load(seed.encode()) is None
        before, content = self.declared(), self.declared("Content")
        refused = self.load(data)
        if refused is None:
            assert self.ask("missing(File, Term)", File=str(self.file)) is None
            self.check_again(data)
        else:
            self.check_refusal(refused, data)
            assert self.declared() == before
        assert self.ask("ran") is None
        assert not self.mark.exists()
        assert self.load(seed.encode()) is None
        assert self.declared("Content") == content

    def check_again(self, data: bytes) -> None:
        content = self.declared("Content")
        assert self.load(data) is None
        assert self.declared("Content") == content

    def check_refusal(self, error: uw.PrologError, data: bytes) -> None:
        formal = error.formal
        assert isinstance(formal, uw.Term)
        assert formal.name == "declarations_refused"
        path, problems = formal.args
        assert path == str(self.file)
        assert isinstance(problems, list)
        assert problems
        lines = re.split(rb"\n", data)
        for problem in problems:
            assert isinstance(problem, uw.Term)
            line, column, _ = problem.args
            assert isinstance(line, int)
            assert isinstance(column, int)
            assert 1 <= line <= len(lines)
            assert column >= 1
            assert f"{self.file}:{line}:{column}: " in str(error)

    def close(self) -> None:
        for path in (self.file, self.others):
            path.write_text(":- encoding(utf8).\n")
            uw.load(path)
        uw.undeclare_service("api")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    engine().consult(WATCHING)
    made = World(tmp_path, engine())
    yield made
    made.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_undamaged_file_is_applied_whole(world: World, seed: str) -> None:
    world.check(seed, seed.encode())
    assert world.load(seed.encode()) is None


@pytest.mark.parametrize("token", TOKENS)
def test_each_token_between_two_terms_runs_nothing(world: World, token: str) -> None:
    world.check(SEEDS[3], damaged(SEEDS[3] * 2, [("insert", 6, 0, token)]))


@pytest.mark.parametrize("count", TIMES)
def test_damaged_file_is_applied_whole_or_not_at_all(world: World, count: int) -> None:
    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(DAMAGED)
    def check(damage: tuple[str, list[Change]]) -> None:
        seed, changes = damage
        world.check(seed, damaged(seed, changes))

    check()
