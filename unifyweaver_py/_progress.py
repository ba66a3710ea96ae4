"""Progress of an operation in the terminal: a line a host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column

from unifyweaver_py._results import Begin, Event, short
from unifyweaver_py._terms import Term, Value

WHOLE = "*"
"""The host of the steps that are of the whole rollout."""


@contextmanager
def progress(console: Console) -> Iterator[Callable[[Event | Begin], None]]:
    """Show a line a host; the function given takes the operation's events, from any thread."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.elapsed:.1f} s", table_column=Column(no_wrap=True, min_width=7)),
    )
    lines = _Lines(Progress(*columns, console=console))
    try:
        yield lines.show
    finally:
        lines.settle()


class _Lines:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._results: dict[TaskID, str] = {}
        self._lock = threading.Lock()

    def show(self, event: Event | Begin) -> None:
        if event.host == WHOLE:
            return
        with self._lock:
            self._bars.start()
            if event.host not in self._tasks:
                self._tasks[event.host] = self._bars.add_task(event.host, total=1)
            task = self._tasks[event.host]
            match event:
                case Begin(host, steps):
                    self._bars.update(task, description=f"{host}  {' → '.join(steps)}")
                case Event(host=host, step="result", outcome=outcome):
                    description = f"{host}  [bold]{escape(short(_process(outcome)))}[/bold]"
                    self._results[task] = description
                    self._bars.update(task, description=description, completed=1)
                case Event(host=host, step="recovery", outcome=outcome):
                    self._bars.console.print(f"{host}  recovery: {escape(short(outcome))}")
                case Event(host=host, step=step, ok=False, outcome=outcome):
                    self._bars.console.print(f"{host}  {step}: [red]{escape(short(outcome))}[/red]")

    def settle(self) -> None:
        """Leave each host's result on its line, also where a step, as unlock_fleet, came after it."""
        if not self._tasks:
            return
        for task, description in self._results.items():
            self._bars.update(task, description=description)
        self._bars.stop()


def _process(outcome: Value) -> Value:
    """The outcome; of what was seen on a host only its process, since a table tells the rest."""
    match outcome:
        case Term("host_status", (_, _, process, *_)):
            return process
    return outcome
