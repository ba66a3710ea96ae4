"""Progress of an operation in the terminal: a line a host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn

from unifyweaver_py._results import Begin, Event, short


@contextmanager
def progress(console: Console) -> Iterator[Callable[[Event | Begin], None]]:
    """Show a line a host; the function given takes the operation's events, from any thread."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.elapsed:.1f} s"),
    )
    with Progress(*columns, console=console) as bars:
        yield _Lines(bars).show


class _Lines:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def show(self, event: Event | Begin) -> None:
        with self._lock:
            if event.host not in self._tasks:
                self._tasks[event.host] = self._bars.add_task(event.host, total=1)
            task = self._tasks[event.host]
            match event:
                case Begin(host, steps):
                    self._bars.update(task, description=f"{host}  {' → '.join(steps)}")
                case Event(host=host, step="result", outcome=outcome):
                    description = f"{host}  [bold]{escape(short(outcome))}[/bold]"
                    self._bars.update(task, description=description, completed=1)
                case Event(host=host, step=step, ok=False, outcome=outcome):
                    self._bars.console.print(f"{host}  {step}: [red]{escape(short(outcome))}[/red]")
