"""The tour that `unifyweaver demo` gives: two good releases, a broken one, and what becomes of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from rich.console import Console
from rich.table import Table

from unifyweaver_py import Result, declare_service_hosts, deploy_with_rollback, effects, load
from unifyweaver_py._progress import progress
from unifyweaver_py._results import short
from unifyweaver_py.demo.fleet import Fleet

HERE = Path(__file__).parent
SECONDS = 5


class SurpriseError(Exception):
    """The demo saw something else than it promises."""


def tour(console: Console) -> None:
    """Deploy versions 1, 2 and 3 to three hosts, and see version 3 rolled back.

    Raises:
        SurpriseError: an HTTP request of the demo's own did not find what it should.
    """
    with _work_folder() as folder, Fleet(3) as fleet:
        effects.set_ledger(folder / "ledger.sqlite3")
        load(folder / "services.pl")
        declare_service_hosts("web", {host.name: fleet.host_options(host) for host in fleet.hosts})
        for version, broken in (("1", False), ("2", False), ("3", True)):
            _write_release(folder, version, broken)
            note = ", which answers 500" if broken else ""
            console.print(f"\n[bold]Version {version}[/bold]{note}")
            with progress(console) as show:
                result = deploy_with_rollback("web", on_event=show)
            console.print(f'deploy_with_rollback("web")  →  {short(result.term)}', highlight=False)
            _expect(fleet, result, version="2" if broken else version, deployed=not broken)
        console.print(_summary(fleet, result))
        console.print(
            'More: for event in deploy_with_rollback("web").events: print(event)', highlight=False
        )


@contextmanager
def _work_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="unifyweaver-demo-"))
    try:
        shutil.copy(HERE / "services.pl", folder)
        shutil.copytree(HERE / "service", folder / "service")
        yield folder
    finally:
        effects.set_ledger(None)
        shutil.rmtree(folder, ignore_errors=True)


def _write_release(folder: Path, version: str, broken: bool) -> None:
    (folder / "service" / "VERSION").write_text(f"{version}\n", encoding="utf-8")
    if broken:
        (folder / "service" / "BROKEN").touch()


def _expect(fleet: Fleet, result: Result, *, version: str, deployed: bool) -> None:
    """Ask every host's service itself what it runs."""
    if result.ok is not deployed:
        raise SurpriseError(f"the result is {result}")
    for host in fleet.hosts:
        found = _answer(host.service_port, "/"), _answer(host.service_port, "/health")
        if found != ((200, version), (200, "healthy")):
            raise SurpriseError(
                f"{host.name} should run version {version} in health, and says {found}"
            )


def _answer(port: int, path: str) -> tuple[int, str]:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(f"http://127.0.0.1:{port}{path}", timeout=SECONDS)
    return answer.status_code, answer.text.strip()


def _summary(fleet: Fleet, result: Result) -> Table:
    table = Table(
        "host", "release", "status", "time", title="After version 3", title_justify="left"
    )
    for host in fleet.hosts:
        release = Path(os.readlink(host.folder / "services" / "web" / "current")).name
        _, version = _answer(host.service_port, "/")
        table.add_row(
            host.name,
            f"version {version} ({release[:8]}…)",
            short(result.hosts[host.name]).split("(")[0],
            f"{result.seconds(host.name):.1f} s",
        )
    return table


def main() -> int:
    """Give the tour; returns the exit status."""
    console = Console()
    began = time.monotonic()
    try:
        tour(console)
    except SurpriseError as surprise:
        console.print(f"[red]The demo failed:[/red] {surprise}")
        return 1
    console.print(f"[dim]{time.monotonic() - began:.1f} s[/dim]")
    return 0
