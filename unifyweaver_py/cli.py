"""The command `unifyweaver`: arguments in, pictures out. What to do is decided by the rules."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from unifyweaver_py._results import Result

Command = TypeVar("Command", bound=Callable[..., object])

USE = 2
"""The exit status for an error of use; that of click too."""

STATUSES = {"done": 0, "failed": 1, "not_restored": 3, "refused": 4, "warned": 5}
"""The exit status for each kind of result."""

LOOKING = ("service_status", "fleet_status", "run_health_check")
"""The operations here that change nothing."""

ABANDONED = "unifyweaver: left at once, and NOT undone: look at the hosts, or run it again"

EPILOG = """\b
Exit status:
  0  done: everything is as asked
  1  failed; what was active before is active again, or was never touched
  2  error of use: the arguments, the file, or what it declares
  3  failed, and NOT restored: look at the hosts
  4  refused, nothing begun: not safe, or another is at work there
  5  done, but a hook failed afterwards
  129, 130, 143  ended by HUP, Ctrl-C or TERM, and undone; a second: left, with 3
Of several services and hosts, the worst counts: 3, then 4, 1, 5, 0."""


class _Commands(click.Group):
    """Commands that end in order: errors of use are messages, and signals undo what is under way."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command named."""
        from unifyweaver_py._errors import UnifyWeaverError

        with _ended_by_signals() as received:
            try:
                return super().invoke(ctx)
            except UnifyWeaverError as error:
                from unifyweaver_py._terminal import shown

                click.echo(f"unifyweaver: {shown(_message(error))}", err=True)
                ctx.exit(USE)
            except KeyboardInterrupt as interrupt:
                click.echo(f"unifyweaver: interrupted {interrupt}".rstrip(), err=True)
                ctx.exit(_interrupted(interrupt, received))


def _message(error: Exception) -> str:
    """What the error says, without the place in the library's rules that raised it."""
    return str(getattr(error, "message", error))


def _interrupted(interrupt: KeyboardInterrupt, received: Sequence[int]) -> int:
    from unifyweaver_py._results import InterruptedOperation

    if isinstance(interrupt, InterruptedOperation):
        from unifyweaver_py._reports import kind_of

        if kind_of("", interrupt.result) == "not_restored":
            return STATUSES["not_restored"]
    return 128 + (received[0] if received else signal.SIGINT)


@contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    """TERM and HUP do what Ctrl-C does, for the time of the block; the list tells which came."""
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    interrupt = signal.getsignal(signal.SIGINT)
    if not callable(
        interrupt
    ):  # a shell's background job ignores it, and must be undone all the same
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGINT, interrupt)


@click.group(cls=_Commands, epilog=EPILOG)
@click.version_option(package_name="unifyweaver_py")
def main() -> None:
    """Deploy services by rules.

    FILE declares services in Prolog; it is read as data and never run. Without SERVICE, all of its services are meant;
    rollback, resume, stop, lock and unlock need to be told which when it declares several.
    """


@main.command()
def demo() -> None:
    """Deploy to three SSH hosts in this process.

    Break a release, and see it rolled back.
    """
    from unifyweaver_py.demo import tour

    sys.exit(tour.main())


def _command(function: Command) -> Command:
    """A command about the services of a file."""
    for decorate in (
        click.option("--host", metavar="HOST", help="Only this one of the service's hosts."),
        click.argument("service", required=False),
        click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    ):
        function = decorate(function)
    return main.command(epilog=EPILOG)(function)  # type: ignore[return-value]


_dry_run = click.option("--dry-run", is_flag=True, help="Look at the hosts, and change nothing.")

_lock_wait = click.option(
    "--lock-wait", type=float, metavar="SECONDS", help="Wait so long for a taken lock (0)."
)


@_command
@click.option("--force", is_flag=True, help="Deploy although nothing changed.")
@_lock_wait
@_dry_run
def deploy(
    *,
    file: Path,
    service: str | None,
    host: str | None,
    force: bool,
    lock_wait: float | None,
    dry_run: bool,
) -> None:
    """Deploy, check health, roll back what fails.

    In batches where the file declares a rollout, unless --host is given. Services without one named
    are deployed in the file's order; the first that fails ends it.
    """
    options = _options(
        host=host,
        force=force or None,
        lock_wait=lock_wait,
        backend="dry" if dry_run else None,
    )
    services = _services(file, service)
    kinds = []
    for number, name in enumerate(services, start=1):
        kinds.append(_operate(_way_to_deploy(name, options), name, options=options))
        if kinds[-1] not in ("done", "warned"):
            if rest := services[number:]:
                click.echo(f"Not begun: {', '.join(rest)}", err=True)
            break
    _leave(kinds)


@_command
@click.option("--to", metavar="HASH", help="A release that is kept, instead of the rollback point.")
@_lock_wait
@_dry_run
def rollback(
    *,
    file: Path,
    service: str | None,
    host: str | None,
    to: str | None,
    lock_wait: float | None,
    dry_run: bool,
) -> None:
    """Go back to the release that was active before."""
    options = _options(host=host, to=to, lock_wait=lock_wait, backend="dry" if dry_run else None)
    _leave([_operate("rollback_service", _one_service(file, service), options=options)])


@_command
@_lock_wait
@_dry_run
def recover(
    *, file: Path, service: str | None, host: str | None, lock_wait: float | None, dry_run: bool
) -> None:
    """Finish or undo what was left half done.

    Such as by a controller that was killed.
    """
    options = _options(host=host, lock_wait=lock_wait, backend="dry" if dry_run else None)
    _leave([_operate("recover", name, options=options) for name in _services(file, service)])


@_command
@click.option(
    "--drain-timeout",
    type=float,
    metavar="SECONDS",
    help="Wait so long for connections to end (30).",
)
@click.option("--force-after", type=float, metavar="SECONDS", help="Then KILL follows TERM (60).")
@_lock_wait
@_dry_run
def stop(
    *,
    file: Path,
    service: str | None,
    host: str | None,
    drain_timeout: float | None,
    force_after: float | None,
    lock_wait: float | None,
    dry_run: bool,
) -> None:
    """Drain connections, then stop."""
    options = _options(
        host=host,
        drain_timeout=drain_timeout,
        force_after=force_after,
        lock_wait=lock_wait,
        backend="dry" if dry_run else None,
    )
    _leave([_operate("graceful_stop", _one_service(file, service), options=options)])


@_command
@click.option("--reason", metavar="TEXT", help="For who finds it taken (by hand).")
def lock(*, file: Path, service: str | None, host: str | None, reason: str | None) -> None:
    """Take the lock: nothing that changes the service is begun until unlock."""
    options = _options(host=host, reason=reason)
    _leave([_operate("lock_service", _one_service(file, service), options=options)])


@_command
def unlock(file: Path, service: str | None, host: str | None) -> None:
    """Give back what lock took, whoever it was."""
    options = _options(host=host)
    _leave([_operate("unlock_service", _one_service(file, service), options=options)])


@_command
def check(file: Path, service: str | None, host: str | None) -> None:
    """Ask whether the service is healthy.

    Exits with 0 when every host is.
    """
    options = _options(host=host)
    _leave(
        [_operate("run_health_check", name, options=options) for name in _services(file, service)]
    )


@_command
def status(file: Path, service: str | None, host: str | None) -> None:
    """Show what runs where.

    Exits with 0 when everything runs and is healthy.
    """
    from unifyweaver_py._reports import kind_of, show_status

    console = _console()
    found = [
        (name, _perform("service_status", name, "health", options=_options(host=host)))
        for name in _services(file, service)
    ]
    show_status(console, found)
    _leave([kind_of("service_status", result.term) for _, result in found])


@main.command(epilog=EPILOG)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("service", required=False)
@_lock_wait
def resume(*, file: Path, service: str | None, lock_wait: float | None) -> None:
    """Go on with the last rollout.

    On the hosts that it did not come to or could not begin with; of the same release.
    """
    options = _options(lock_wait=lock_wait)
    _leave([_operate("resume_rollout", _one_service(file, service), options=options)])


@_command
def fleet(file: Path, service: str | None, host: str | None) -> None:
    """Show release, process and health of every host.

    And whether the release is what was last deployed there. Exits with 0 when all is well.
    """
    from unifyweaver_py._reports import kind_of, show_fleet
    from unifyweaver_py._results import FleetStatus

    kinds = []
    for name in _services(file, service):
        found = _perform("fleet_status", name, options=_options(host=host))
        show_fleet(_console(), name, FleetStatus(found.term, found.ok, found.events))
        kinds.append(kind_of("fleet_status", found.term))
    _leave(kinds)


@_command
@click.option("--force", is_flag=True, help="As if something had changed.")
def plan(file: Path, service: str | None, host: str | None, force: bool) -> None:
    """Show the steps that deploy would take.

    On each host, from what is there now; batches of a rollout are not shown.
    """
    from unifyweaver_py import deployment_plan
    from unifyweaver_py._reports import show_plan

    console = _console()
    for name in _services(file, service):
        options = _options(host=host, force=force or None)
        show_plan(console, name, deployment_plan(name, **options))


@_command
def rebuild_ledger(file: Path, service: str | None, host: str | None) -> None:
    """Record what is active on the hosts.

    For a ledger that was lost.
    """
    options = _options(host=host)
    services = _services(file, service)
    _leave([_operate("rebuild_ledger", name, options=options) for name in services])


@main.command(epilog=EPILOG)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("service", required=False)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The newest N of each (100).")
@click.option("--unfinished", is_flag=True, help="Only those whose end is not recorded.")
def history(*, file: Path, service: str | None, limit: int | None, unfinished: bool) -> None:
    """Show what was done, the newest first.

    By whom, and what came of it.
    """
    import unifyweaver_py
    from unifyweaver_py._reports import show_runs

    options = _options(limit=limit, unfinished=unfinished or None)
    runs = [
        run for name in _services(file, service) for run in unifyweaver_py.history(name, **options)
    ]
    show_runs(_console(), sorted(runs, key=lambda run: run.began, reverse=True))


@main.command(epilog=EPILOG)
@click.argument("run")
def events(run: str) -> None:
    """Show each step of a RUN.

    One that history tells; and, if it was cut off, the steps it was about to do.
    """
    from unifyweaver_py import run_events
    from unifyweaver_py._reports import show_entries

    show_entries(_console(), run_events(run))


def _way_to_deploy(service: str, options: dict[str, object]) -> str:
    from unifyweaver_py import rollout_config

    rolls = rollout_config(service) is not None and "host" not in options
    return "deploy_to_all_hosts" if rolls else "deploy_with_rollback"


def _options(**options: object) -> dict[str, object]:
    """Those that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _services(file: Path, service: str | None) -> list[str]:
    """Load the file; the service named, or all that the file declares, in its order."""
    from unifyweaver_py import load, query

    load(file)
    if service is not None:
        return [service]
    goal = "deployment_loader:file_service(File, Service)"
    names = [str(answer["Service"]) for answer in query(goal, File=str(file.absolute()))]
    if not names:
        raise click.UsageError(f"{file} declares no service")
    return names


def _one_service(file: Path, service: str | None) -> str:
    names = _services(file, service)
    if len(names) > 1:
        raise click.UsageError(
            f"{file} declares {', '.join(names)}: name the SERVICE that is meant"
        )
    return names[0]


def _operate(operation: str, service: str, *, options: dict[str, object]) -> str:
    """Perform an operation and show it; the answer is the kind of its result."""
    from unifyweaver_py._reports import kind_of, show_result

    _tell_unfinished(service)
    result = _perform(operation, service, options=options)
    show_result(_console(), operation, service, result)
    if options.get("backend") == "dry":
        click.echo("Dry run: nothing was changed.", err=True)
    return kind_of(operation, result.term)


FINISHING = ("deploy_with_rollback", "deploy_to_all_hosts", "resume_rollout", "recover")
"""The operations that begin with what an earlier one left."""


def _tell_unfinished(service: str) -> None:
    """Tell which runs were left without an end, since one that would have found what they left."""
    from unifyweaver_py import history, unfinished_runs

    left = {run.id for run in unfinished_runs(service)}
    for run in history(service, limit=20) if left else ():
        if run.ended is not None and run.operation in FINISHING:
            break
        if run.id in left:
            words = f"Unfinished: {run.operation} by {run.by}, run {run.id}. What it left on the hosts is finished or"
            click.echo(f"{words} undone first by deploy and resume, and by recover.", err=True)


def _perform(operation: str, service: str, *arguments: str, options: dict[str, object]) -> Result:
    from unifyweaver_py import _api
    from unifyweaver_py._progress import progress
    from unifyweaver_py._results import HostResults, InterruptedOperation

    try:
        with progress(_console(stderr=True)) as show:
            done = _api._operate(operation, service, *arguments, options=options, on_event=show)
    except InterruptedOperation:
        raise
    except KeyboardInterrupt:
        if operation in LOOKING:
            raise
        click.echo(ABANDONED, err=True)
        sys.exit(STATUSES["not_restored"])
    if isinstance(done.term, list):
        return HostResults(done.term, done.ok, done.events, done.run)
    return done


def _leave(kinds: Sequence[str]) -> NoReturn:
    """End with the exit status of the worst kind of result."""
    from unifyweaver_py._reports import worst_of

    sys.exit(STATUSES[worst_of(kinds)])


def _console(*, stderr: bool = False) -> Console:
    from unifyweaver_py._terminal import Terminal

    return Terminal(stderr=stderr)
