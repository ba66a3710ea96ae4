"""Progress of an operation in the terminal: a line a host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn

from unifyweaver_py._results import Begin, Event, short
from unifyweaver_py._terms import Term


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

    def _of_fleet(self, event: Event | Begin) -> bool:
        """Whether it is of no single host; batches are told, the lock of the gate is not."""
        match event:
            case Begin(steps=steps):
                return all(step.endswith("_fleet") for step in steps)
            case Event(host="*", step=step, notes=notes):
                hosts = [note.args[-1] for note in notes if isinstance(note, Term)]
                named = ", ".join(
                    str(host) for group in hosts if isinstance(group, list) for host in group
                )
                self._bars.console.print(f"{step}  {escape(named)}")
                return True
        return event.step.endswith("_fleet") and event.ok

    def show(self, event: Event | Begin) -> None:
        with self._lock:
            if self._of_fleet(event):
                return
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
