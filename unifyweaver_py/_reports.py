"""What the command line shows: results, statuses and plans in words, on a rich console."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unifyweaver_py._api import once
from unifyweaver_py._history import Intent, Run
from unifyweaver_py._results import Event, FleetStatus, Result, clock, short, shortened, text
from unifyweaver_py._terms import Term, Value

COLOURS = {
    "done": "green",
    "warned": "yellow",
    "failed": "red",
    "refused": "red",
    "not_restored": "bold red",
}


def kind_of(operation: str, result: Value) -> str:
    """Return the kind of a result: a key of `COLOURS`."""
    goal = "deployment_operations:result_kind(Operation, Result, Kind)"
    return _text(goal, "Kind", Operation=operation, Result=result)


def worst_of(kinds: Sequence[str]) -> str:
    """Return the worst of some kinds of results."""
    return _text("deployment_operations:worst_kind(Kinds, Kind)", "Kind", Kinds=list(kinds))


def show_result(console: Console, operation: str, service: str, result: Result) -> None:
    """Print a line a host: what became of the operation there, and where it failed what to do about it."""
    table = _table("service", "host", "result", "time")
    for host, outcome in _by_host(result).items():
        colour = COLOURS[kind_of(operation, outcome)]
        words = f"[{colour}]{escape(_in_words(outcome))}[/{colour}]"
        seconds = f"{result.seconds(host):.1f} s" if host in result.hosts else ""
        table.add_row(escape(service), escape(host), words, seconds)
    console.print(table)
    for host, outcome in _by_host(result).items():
        _explain(console, operation, host, outcome, result.events)


def show_runs(console: Console, runs: Iterable[Run]) -> None:
    """Print two lines a run: its id, what was done, when and by whom; what came of it."""
    for run in runs:
        seconds = "" if run.seconds is None else f", {run.seconds:.1f} s"
        what = " ".join((run.operation, run.service, *(one[:8] + "…" for one in run.releases)))
        _say(console, f"{run.id}  {what}")
        _say(console, f"    {clock(run.began)}{seconds}, by {run.by}: {_became(run)}")


def _became(run: Run) -> str:
    """The result in words; where hosts differ, each with how many they are."""
    match run.result:
        case None:
            return "unfinished"
        case list(results) | Term("mixed", (list(results),)):
            words = Counter(_in_words(one.args[1]) for one in results)
            if len(words) > 1:
                return "; ".join(f"{count} {one}" for one, count in words.items())
            return next(iter(words), "nothing")
    return _in_words(run.result)


def show_entries(console: Console, entries: Iterable[Event | Intent]) -> None:
    """Print a line for each step, with what was noted of it, and for steps whose end is not known."""
    for entry in entries:
        _say(console, f"{time.strftime('%H:%M:%S', time.localtime(entry.time))} {entry}")
        for note in entry.notes if isinstance(entry, Event) else ():
            _say(console, f"    {text(note)}")


def _explain(
    console: Console, operation: str, host: str, outcome: Value, events: Iterable[Event]
) -> None:
    if kind_of(operation, outcome) == "done":
        return
    own = [event for event in events if event.host == host and event.step != "result"]
    for event in own:
        if not event.ok:
            _say(console, f"{host}: {event.step}: {_in_words(event.outcome)}")
        for line in _lines(event):
            _say(console, f"    {line}")
    for reason in (outcome, *(event.outcome for event in own if not event.ok)):
        if advice := once("deployment_narration:advice(Result, Text)", Result=reason):
            _say(console, f"{host}: → {advice['Text']}")
            break


def _lines(event: Event) -> list[str]:
    """The end of the service's log, and of a step that failed the output of its command."""
    wanted = ("log",) if event.ok else ("log", "line")
    return [
        str(note.args[0]) for note in event.notes if isinstance(note, Term) and note.name in wanted
    ]


def _say(console: Console, words: str) -> None:
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def _by_host(result: Result) -> dict[str, Value]:
    """The result of each host; that of all under the name `all hosts` when none was begun."""
    return result.hosts or {"all hosts": result.term}


def show_status(console: Console, statuses: Sequence[tuple[str, Result]]) -> None:
    """Print a line a service and host: its status, its active release and its rollback point."""
    table = _table("service", "host", "status", "release", "rollback point")
    for service, result in statuses:
        for host, outcome in result.hosts.items():
            colour = COLOURS[kind_of("service_status", outcome)]
            words = f"[{colour}]{escape(_in_words(outcome))}[/{colour}]"
            found = [_observed(result.events, host, name) for name in ("current", "backup")]
            table.add_row(escape(service), escape(host), words, *found)
    console.print(table)


def _observed(events: Iterable[Event], host: str, name: str) -> str:
    for event in events:
        for note in event.notes:
            if event.host == host and isinstance(note, Term) and note.name == name:
                return short(note.args[0])
    return "-"


def show_fleet(console: Console, service: str, fleet: FleetStatus) -> None:
    """Print a line a host."""
    table = _table("service", "host", "release", "process", "health", "since", "drift")
    for found in fleet:
        colour = COLOURS[kind_of("service_status", found.process)]
        process = f"[{colour}]{escape(_in_words(found.process))}[/{colour}]"
        cells = (
            short(found.release),
            process,
            found.health,
            clock(found.since),
            _drift(found.drift),
        )
        table.add_row(escape(service), escape(found.host), *cells)
    console.print(table)


def _drift(drift: Value) -> str:
    match drift:
        case Term("drift", (known, _)):
            return f"[yellow]{short(known)} was deployed[/yellow]"
    return "-" if drift == "none" else str(drift)


def show_plan(console: Console, service: str, plan: Sequence[Term]) -> None:
    """Print the steps of a plan, a list a host."""
    hosts = dict.fromkeys(str(step.args[1]) for step in plan)
    for host in hosts:
        console.print(f"{service} on {host}", style="bold", markup=False, highlight=False)
        steps = [step for step in plan if step.args[1] == host]
        for number, step in enumerate(steps, start=1):
            words = _text("deployment_narration:step_text(Step, Text)", "Text", Step=step)
            _say(console, f"  {number:2} {step.args[0]}: {shortened(words)}")


def _in_words(outcome: Value) -> str:
    goal = "deployment_narration:result_text(Result, Text)"
    return shortened(_text(goal, "Text", Result=outcome))


def _text(goal: str, variable: str, **bindings: Value) -> str:
    answer = once(goal, **bindings)
    if answer is None:
        raise RuntimeError(f"{goal} failed for {bindings}")
    return cast("str", answer[variable])


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
