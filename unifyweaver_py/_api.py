"""One function a predicate.

Options are keyword arguments with the names of the contract. Hosts, services and other atoms are `str`. A query
called with all its arguments gives the value, or None where there is no answer; called without one, it iterates.
"""

from __future__ import annotations

import atexit
import gc
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias, cast, overload

from unifyweaver_py._engine import Engine
from unifyweaver_py._engine import engine as start_engine
from unifyweaver_py._history import Intent, Runs, entry_of, runs_of
from unifyweaver_py._results import (
    Begin,
    Event,
    FleetStatus,
    HostResults,
    InterruptedOperation,
    Result,
    event_of,
)
from unifyweaver_py._terms import Term, Value

OptionValue: TypeAlias = Any
Options: TypeAlias = dict[str, OptionValue]
OnEvent: TypeAlias = Callable[[Event | Begin], object]
Action: TypeAlias = str | Term

_ready: Engine | None = None
_ready_lock = threading.Lock()


def _engine() -> Engine:
    """Return the engine with the effects in place; starts it at the first call."""
    global _ready  # noqa: PLW0603  # the engine is one a process
    if _ready is None:
        with _ready_lock:
            if _ready is None:
                from unifyweaver_py import effects

                ahead = threading.Thread(target=_import_ahead, daemon=True)
                ahead.start()
                atexit.register(_end_importing, ahead)
                engine = start_engine()
                effects.install(engine)
                _ready = engine
    return _ready


_leaving = threading.Event()


def _import_ahead() -> None:
    """Import what operations on hosts need while Python is idle: Prolog starts, a host unpacks."""
    with suppress(ImportError):  # it is raised again where it is needed
        with _no_garbage():
            from unifyweaver_py.effects import scripts, ssh  # noqa: F401

        scripts.shipped.wait()
        if not _leaving.is_set():
            from unifyweaver_py.effects import http  # noqa: F401


def _end_importing(ahead: threading.Thread) -> None:
    """Wait for what is being imported: a thread that Python ends within a library's C code may crash it."""
    from unifyweaver_py.effects import scripts

    _leaving.set()
    scripts.shipped.set()
    ahead.join()


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Imports leave none behind: to look for it meanwhile takes a tenth of their time."""
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looks:
            gc.enable()


# ---- asking Prolog ----------------------------------------------------------------------------------


def query(goal: str | Term, **bindings: Value) -> Iterator[dict[str, Value]]:
    """Iterate over the solutions of a goal, a dict of its variables each.

    ``query("service_host(S, H, _)", S="api")`` binds ``S`` as a value: it is never text of the goal.

    Raises:
        PrologError: the goal is no Prolog text, or raised.
    """
    return _engine().query(goal, bindings)


def once(goal: str | Term, **bindings: Value) -> dict[str, Value] | None:
    """Return the first solution of a goal as a dict of its variables, or None."""
    return _engine().once(goal, bindings)


def load(path: str | os.PathLike[str], *, trusted: bool = False) -> None:
    """Load a file of declarations.

    The file is read as data and never run: all of it is applied, or nothing. Loading it again replaces what it
    had declared. With ``trusted=True`` it is consulted, as any Prolog program.

    Raises:
        PrologError: the file was refused; the message tells each problem with file, line and column.
    """
    goal = (
        "deployment_loader:load_trusted(File)"
        if trusted
        else "deployment_loader:load_declarations(File)"
    )
    _once(goal, File=str(Path(path).absolute()))


def _once(goal: str, **bindings: Value) -> dict[str, Value]:
    answer = _engine().once(goal, bindings)
    if answer is None:
        raise RuntimeError(f"{goal} failed for {bindings}")
    return answer


def _declare(goal: str, **bindings: Value) -> None:
    _once(
        f"deployment_declarations:with_origin(user, Folder, deployment_glue:{goal})",
        Folder=os.getcwd(),
        **bindings,
    )


# ---- options between Python and Prolog --------------------------------------------------------------


def _options(options: Mapping[str, OptionValue]) -> list[Value]:
    terms: list[Value] = []
    for name, value in options.items():
        if name == "header" and isinstance(value, Mapping):
            terms += [Term("header", (field, text)) for field, text in value.items()]
        elif isinstance(value, Mapping):
            terms.append(Term(name, ([Term("-", pair) for pair in value.items()],)))
        elif value is not None:
            terms.append(Term(name, (value if isinstance(value, (str, Term)) else _plain(value),)))
    return terms


def _plain(value: OptionValue) -> Value:
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    if isinstance(value, tuple):
        return list(value)
    return cast("Value", value)


def _dict(options: Value) -> Options:
    found: Options = {}
    for option in cast("list[Value]", options):
        match option:
            case Term("header", (str(name), value)):
                found.setdefault("header", {})[name] = value
            case Term(name, (list(pairs),)) if pairs and all(_is_pair(pair) for pair in pairs):
                found[name] = {pair.args[0]: pair.args[1] for pair in pairs}
            case Term(name, (value,)):
                found[name] = value
    return found


def _is_pair(value: Value) -> bool:
    return isinstance(value, Term) and value.name == "-" and len(value.args) == 2


# ---- declarations -----------------------------------------------------------------------------------


def custom(command: str) -> Term:
    """Return the hook action that runs a command on the target, in the active release's folder."""
    return Term("custom", (command,))


def run_once(action: Action) -> Term:
    """Return the hook action that runs an action once a deployment, on the first host."""
    return Term("run_once", (action,))


def secret(value: str | None = None, *, env: str | None = None, command: str | None = None) -> Term:
    """Return a value of ``env`` that is shown nowhere, and is kept on the host in a file of mode 0600.

    It is the literal ``value``, what the variable ``env`` holds where the deployment is made, or what ``command``
    prints there. ``declare_service("api", env={"TOKEN": secret(env="API_TOKEN")})``

    Raises:
        TypeError: not exactly one of them is given.
        ValueError: the value holds a NUL character or is longer than 64 kB.
    """
    if [value, env, command].count(None) != 2:
        raise TypeError("secret() takes a value, env= or command=")
    if env is not None:
        return Term("secret", (Term("env", (env,)),))
    if command is not None:
        return Term("secret", (Term("command", (command,)),))
    value = cast("str", value)
    from unifyweaver_py.effects.vault import own_vault

    sealed = own_vault.seal(value)
    if sealed == "refused":
        raise ValueError("a secret has 64 kB at most, and no NUL character")
    return Term("secret", (sealed,))


def exclude(pattern: str) -> Term:
    r"""Return the source pattern that leaves out what matches: ``\+ Pattern``."""
    return Term("\\+", (pattern,))


def declare_service(name: str, **options: OptionValue) -> None:
    """Declare a service, or replace its declaration.

    ``declare_service("api", host="a.example", port=8080, transport="https")``

    Raises:
        DomainError, TypeError_: an option is unknown (the nearest known one is named) or has a wrong value.
    """
    _declare("declare_service(Name, Options)", Name=name, Options=_options(options))


def undeclare_service(name: str) -> None:
    """Remove a service and every declaration about it; nothing happens when there is none."""
    _once("undeclare_service(Name)", Name=name)


def declare_deploy_method(service: str, method: str, **options: OptionValue) -> None:
    """Declare how a service is deployed: ``ssh`` or ``local``; replaces."""
    _declare(
        "declare_deploy_method(Service, Method, Options)",
        Service=service,
        Method=method,
        Options=_options(options),
    )


def declare_service_sources(service: str, patterns: Iterable[str | Term]) -> None:
    """Declare the files to ship, relative to the working folder or the service's ``source_dir``.

    ``**`` stands for any number of folders; `exclude` leaves out.
    """
    _declare(
        "declare_service_sources(Service, Patterns)", Service=service, Patterns=_several(patterns)
    )


def _several(items: Iterable[Any]) -> list[Any]:
    """Return the items as a list; text would be taken apart into its letters."""
    if isinstance(items, str):
        raise TypeError(f"a list is needed, not the text {items!r}: write [{items!r}]")
    return list(items)


def declare_lifecycle_hook(service: str, event: str, action: Action) -> None:
    """Declare what is done at an event: an action's name, `custom` or `run_once`."""
    _declare(
        "declare_lifecycle_hook(Service, Event, Action)",
        Service=service,
        Event=event,
        Action=action,
    )


def declare_service_hosts(
    service: str, hosts: Mapping[str, Mapping[str, OptionValue]] | Iterable[str]
) -> None:
    """Declare the hosts of a service, with options of their own where given; replaces.

    ``declare_service_hosts("api", {"api1.example.com": {"user": "deploy"}})``
    """
    named = hosts if isinstance(hosts, Mapping) else {host: {} for host in _several(hosts)}
    configs: list[Value] = [
        Term("host_config", (host, _options(options))) for host, options in named.items()
    ]
    _declare("declare_service_hosts(Service, Hosts)", Service=service, Hosts=configs)


def declare_rollout(service: str, **options: OptionValue) -> None:
    """Declare how `deploy_to_all_hosts` goes through the hosts of a service; replaces.

    ``declare_rollout("api", batches=[1, "25%"], min_healthy_time=10)``
    """
    _declare("declare_rollout(Service, Options)", Service=service, Options=_options(options))


@overload
def rollout_config(service: str) -> Options | None: ...
@overload
def rollout_config() -> Iterator[tuple[str, Options]]: ...
def rollout_config(service: str | None = None) -> Any:
    """Return the declared options of a service's rollout, or iterate over ``(service, options)``."""
    return _facts("rollout_config(Service, Value)", service, _dict)


def declare_load_balancer(service: str, balancer: str = "haproxy", **options: OptionValue) -> None:
    """Declare the load balancer in front of a service's hosts; replaces.

    ``declare_load_balancer("web", socket="/run/haproxy/admin.sock", backend="web")``
    """
    term = Term(balancer, (_options(options),))
    _declare("declare_load_balancer(Service, Balancer)", Service=service, Balancer=term)


@overload
def load_balancer_config(service: str) -> tuple[str, Options] | None: ...
@overload
def load_balancer_config() -> Iterator[tuple[str, tuple[str, Options]]]: ...
def load_balancer_config(service: str | None = None) -> Any:
    """Return a service's ``(balancer, options)``, or iterate over ``(service, (balancer, options))``."""
    return _facts(
        "load_balancer_config(Service, Value)",
        service,
        lambda value: (cast("Term", value).name, _dict(cast("Term", value).args[0])),
    )


@overload
def service_config(name: str) -> Options | None: ...
@overload
def service_config() -> Iterator[tuple[str, Options]]: ...
def service_config(name: str | None = None) -> Any:
    """Return a service's options, or iterate over ``(service, options)``."""
    return _facts("service_config(Service, Value)", name, _dict)


@overload
def deploy_method_config(service: str) -> tuple[str, Options] | None: ...
@overload
def deploy_method_config() -> Iterator[tuple[str, tuple[str, Options]]]: ...
def deploy_method_config(service: str | None = None) -> Any:
    """Return a service's ``(method, options)``, or iterate over ``(service, (method, options))``."""
    return _facts(
        "deploy_method_config(Service, Method, Options), Value = method(Method, Options)",
        service,
        lambda value: (cast("Term", value).args[0], _dict(cast("Term", value).args[1])),
    )


@overload
def service_sources(service: str) -> list[Value] | None: ...
@overload
def service_sources() -> Iterator[tuple[str, list[Value]]]: ...
def service_sources(service: str | None = None) -> Any:
    """Return a service's source patterns, or iterate over ``(service, patterns)``."""
    return _facts("service_sources(Service, Value)", service, list)


@overload
def lifecycle_hooks(service: str) -> list[Term] | None: ...
@overload
def lifecycle_hooks() -> Iterator[tuple[str, list[Term]]]: ...
def lifecycle_hooks(service: str | None = None) -> Any:
    """Return a service's hooks as ``hook(Event, Action)`` terms, or iterate over ``(service, hooks)``."""
    return _facts("lifecycle_hooks(Service, Value)", service, list)


@overload
def service_hosts(service: str) -> dict[str, Options] | None: ...
@overload
def service_hosts() -> Iterator[tuple[str, dict[str, Options]]]: ...
def service_hosts(service: str | None = None) -> Any:
    """Return a service's declared hosts with their own options, or iterate over ``(service, hosts)``."""
    return _facts(
        "service_hosts(Service, Value)",
        service,
        lambda value: {config.args[0]: _dict(config.args[1]) for config in value},
    )


def service_host(service: str | None = None, host: str | None = None) -> Any:
    """Return the resolved options of a host, or iterate over ``(service, host, options)``."""
    goal = "service_host(Service, Host, Options)"
    if service is not None and host is not None:
        answer = once(goal, Service=service, Host=host)
        return None if answer is None else _dict(answer["Options"])
    known = {"Service": service, "Host": host}
    bound = {name: value for name, value in known.items() if value is not None}
    return (
        (
            bound.get("Service") or answer["Service"],
            bound.get("Host") or answer["Host"],
            _dict(answer["Options"]),
        )
        for answer in query(goal, **bound)
    )


def _facts(goal: str, service: str | None, value: Callable[[Any], Any]) -> Any:
    if service is None:
        return ((answer["Service"], value(answer["Value"])) for answer in query(goal))
    answer = once(goal, Service=service)
    return None if answer is None else value(answer["Value"])


# ---- security, hashes -------------------------------------------------------------------------------


def validate_security(service: str) -> list[Term]:
    """Return what makes the service unsafe: ``remote_requires_encryption(Host)`` and the like, or ``[]``."""
    return cast(
        "list[Term]", _once("validate_security(Service, Errors)", Service=service)["Errors"]
    )


def requires_encryption(service: str) -> bool:
    """Return whether the service has a remote host."""
    return once("requires_encryption(Service)", Service=service) is not None


def is_local_service(service: str) -> bool:
    """Return whether all hosts of the service are this machine."""
    return once("is_local_service(Service)", Service=service) is not None


def compute_source_hash(service: str) -> str:
    """Return the SHA-256, in hexadecimal, over the files that would be shipped."""
    return cast("str", _once("compute_source_hash(Service, Hash)", Service=service)["Hash"])


def release_hash(service: str) -> str:
    """Return the SHA-256, in hexadecimal, over the files and the run configuration."""
    return cast("str", _once("release_hash(Service, Hash)", Service=service)["Hash"])


def check_for_changes(service: str, host: str | None = None) -> Value:
    """Return ``never_deployed``, ``no_changes`` or ``changed(Old, New)``, by what was last seen on the host."""
    if host is None:
        return _once("check_for_changes(Service, Changes)", Service=service)["Changes"]
    goal = "check_for_changes(Service, Host, Changes)"
    return _once(goal, Service=service, Host=host)["Changes"]


def store_deployed_hash(service: str, deployed: str) -> None:
    """Record a release hash as the deployed one, for all hosts of the service."""
    _once("store_deployed_hash(Service, Hash)", Service=service, Hash=deployed)


def deployed_hash(service: str | None = None, host: str | None = None) -> Any:
    """Return the release hash last seen active, on a host or where all hosts agree.

    Without a service, iterate over ``(service, hash)``.
    """
    return _hashes("deployed_hash", service, host)


def store_rollback_hash(service: str, rollback: str) -> None:
    """Record a release hash as the rollback point, for all hosts of the service."""
    _once("store_rollback_hash(Service, Hash)", Service=service, Hash=rollback)


def rollback_hash(service: str | None = None, host: str | None = None) -> Any:
    """Return the release hash of the rollback point, as `deployed_hash` does."""
    return _hashes("rollback_hash", service, host)


def _hashes(predicate: str, service: str | None, host: str | None) -> Any:
    if service is None:
        return ((a["Service"], a["Hash"]) for a in query(f"{predicate}(Service, Hash)"))
    if host is None:
        answer = once(f"{predicate}(Service, Hash)", Service=service)
    else:
        answer = once(f"{predicate}(Service, Host, Hash)", Service=service, Host=host)
    return None if answer is None else answer["Hash"]


# ---- scripts ----------------------------------------------------------------------------------------


def generate_deploy_script(service: str, **options: OptionValue) -> str:
    """Return a bash script that deploys the service without this library, by its declared method.

    Run with the folder to ship as its argument, it does what `deploy_with_rollback` does on one host: ``host``, or
    else the service's first. Options are those of service and method. It exits with 0 when the service is deployed
    or unchanged, 1 when it failed and everything is as it was, 2 when called wrongly, 3 when what was could not be
    brought back.

    Raises:
        ExistenceError: the service or its deploy method are not declared.
        DomainError, TypeError_: an option is unknown or has a wrong value.
    """
    return _generate("generate_deploy_script", service, options)


def generate_ssh_deploy(service: str, **options: OptionValue) -> str:
    """Return the script of `generate_deploy_script` by SSH, whatever method is declared."""
    return _generate("generate_ssh_deploy", service, options)


def generate_rollback_script(service: str, **options: OptionValue) -> str:
    """Return a bash script that makes the release active that ``.backup`` names, starts it and checks its health.

    Without a backup it exits with 1; otherwise as `generate_deploy_script` says.
    """
    return _generate("generate_rollback_script", service, options)


def generate_health_check_script(service: str, **options: OptionValue) -> str:
    """Return a bash script that exits with 0 when the service answers 200, else with 2.

    Options are ``retries`` (3 tries), ``timeout`` (5 seconds each), ``health_endpoint`` (``/health``), and those of
    service and method. Another host than this machine is asked over https, or through SSH.
    """
    return _generate("generate_health_check_script", service, options)


def generate_systemd_unit(service: str, **options: OptionValue) -> str:
    """Return a systemd unit, for the system, that runs the service's active release as the method's ``user``."""
    return _generate("generate_systemd_unit", service, options)


def _generate(predicate: str, service: str, options: Mapping[str, OptionValue]) -> str:
    goal = f"{predicate}(Service, Options, Text)"
    return cast("str", _once(goal, Service=service, Options=_options(options))["Text"])


# ---- operations -------------------------------------------------------------------------------------


def deploy_service(
    service: str, *, on_event: OnEvent | None = None, **options: OptionValue
) -> Result:
    """Ship, switch and start, without hooks or health check.

    The result is ``deployed(Changes)``, ``unchanged`` or ``error(Reason)``. Options of all operations: ``host`` (one
    of the service's hosts), ``backend`` (``live``, ``dry`` or ``model(Script)``), ``force``, ``max_parallel`` (30).

    Raises:
        ExistenceError: the service, its deploy method, its sources or its host are not declared.
    """
    return _operate("deploy_service", service, options=options, on_event=on_event)


def deploy_with_hooks(
    service: str, *, on_event: OnEvent | None = None, **options: OptionValue
) -> Result:
    """Deploy between the ``pre_deploy`` and ``post_deploy`` hooks.

    The result is ``deployed``, ``unchanged``, ``deployed_with_warnings(Error)`` or ``error(Reason)``.
    """
    return _operate("deploy_with_hooks", service, options=options, on_event=on_event)


def deploy_with_rollback(
    service: str, *, on_event: OnEvent | None = None, **options: OptionValue
) -> Result:
    """Deploy, check health, and go back to the previous release when it is unhealthy.

    The result is that of `deploy_with_hooks`, or ``rolled_back_after_failure(Back)``. Where hosts differ, it is
    ``mixed([result(Host, Result), ...])``. ``on_event`` is called, on other threads, for each step.
    """
    return _operate("deploy_with_rollback", service, options=options, on_event=on_event)


def deploy_to_all_hosts(
    service: str, *, on_event: OnEvent | None = None, **options: OptionValue
) -> HostResults:
    """Do `deploy_with_rollback` on all hosts, in the batches of a declared rollout.

    Gives a list of ``result(Host, Result)`` in order of declaration. In a rollout, results may also be
    ``rolled_back_with_fleet`` and ``skipped(Reason)``.
    """
    result = _operate("deploy_to_all_hosts", service, options=options, on_event=on_event)
    return HostResults(result.term, result.ok, result.events, result.run)


def resume_rollout(
    service: str, *, on_event: OnEvent | None = None, **options: OptionValue
) -> HostResults:
    """Go on with the last rollout, on the hosts that it did not come to or could not begin with.

    The results are those of `deploy_to_all_hosts`, or ``error(no_rollout_to_resume)``, or
    ``error(release_changed(Old, New))`` where what would be shipped is not what its first hosts got.
    """
    result = _operate("resume_rollout", service, options=options, on_event=on_event)
    return HostResults(result.term, result.ok, result.events, result.run)


def fleet_status(service: str, **options: OptionValue) -> FleetStatus:
    """Look at every host: its active release, process, health, and whether the ledger says the same."""
    result = _operate("fleet_status", service, options=options)
    return FleetStatus(result.term, result.ok, result.events)


def recover(
    service: str, *, on_event: OnEvent | None = None, **options: OptionValue
) -> HostResults:
    """Finish or undo what operations left half done, such as one whose controller was killed.

    A list of ``result(Host, Status)``; a status is ``nothing_to_recover``, ``completed(Hash)``, ``undone(Hash)`` or
    ``error(Reason)``.
    """
    result = _operate("recover", service, options=options, on_event=on_event)
    return HostResults(result.term, result.ok, result.events, result.run)


def deployment_plan(service: str, **options: OptionValue) -> list[Term]:
    """Return the steps that `deploy_with_rollback` would take: ``step(Id, Host, Action, Undo)`` each.

    Hosts are observed, and not changed.
    """
    plan = _operate("deployment_plan", service, options=options)
    return cast("list[Term]", plan.term)


def rollback_service(
    service: str, *, on_event: OnEvent | None = None, **options: OptionValue
) -> Result:
    """Go back to the rollback point, or to the kept release ``to=hash``.

    The result is ``rolled_back(Hash)``, ``error(no_rollback_available)`` or ``error(rollback_failed(Reason))``.
    """
    return _operate("rollback_service", service, options=options, on_event=on_event)


def start_service(service: str, **options: OptionValue) -> Result:
    """Start the active release: ``started`` or ``error(start_failed(Reason))``."""
    return _operate("start_service", service, options=options)


def stop_service(service: str, **options: OptionValue) -> Result:
    """Stop now: ``stopped`` or ``error(stop_failed(Reason))``."""
    return _operate("stop_service", service, options=options)


def restart_service(service: str, **options: OptionValue) -> Result:
    """Stop and start the active release."""
    return _operate("restart_service", service, options=options)


def lock_service(service: str, **options: OptionValue) -> Result:
    """Take the lock of each host by hand, for a ``reason``: nothing that changes the service there is begun.

    The result is ``locked``, ``error(locked(Owner, Since, Purpose))`` or ``error(lock_failed(Reason))``.
    """
    return _operate("lock_service", service, options=options)


def unlock_service(service: str, **options: OptionValue) -> Result:
    """Give back what ``lock_service`` took, whoever it was: ``unlocked`` or ``error(Reason)``."""
    return _operate("unlock_service", service, options=options)


def lock_status(service: str, **options: OptionValue) -> Result:
    """Return ``unlocked``, ``locked(Owner, Since, Purpose)`` or ``unreachable(Reason)``."""
    return _operate("lock_status", service, options=options)


def graceful_stop(service: str, **options: OptionValue) -> Result:
    """Drain for ``drain_timeout`` (30) seconds, stop, and kill after ``force_after`` (60) more.

    The result is ``stopped``, ``force_stopped`` or ``error(Reason)``.
    """
    return _operate("graceful_stop", service, options=options)


def drain_connections(service: str, **options: OptionValue) -> Result:
    """Wait until nobody is connected, for ``timeout`` (30) seconds at most.

    The result is ``drained``, ``timeout`` or ``error(Reason)``.
    """
    return _operate("drain_connections", service, options=options)


def force_stop_service(service: str, timeout: float = 10, **options: OptionValue) -> Result:
    """Send TERM, and KILL after ``timeout`` seconds: ``stopped`` or ``force_stopped``."""
    return _operate("force_stop_service", service, timeout, options=options)


def execute_hooks(service: str, event: str, **options: OptionValue) -> Result:
    """Run the hooks of an event on each host: ``ok`` or ``error(hook_failed(Action, Reason))``."""
    return _operate("execute_hooks", service, event, options=options)


def run_health_check(service: str, **options: OptionValue) -> Result:
    """Ask ``retries`` (3) times, ``delay`` (2) seconds apart: ``healthy`` or ``unhealthy``."""
    return _operate("run_health_check", service, options=options)


def wait_for_healthy(service: str, **options: OptionValue) -> Result:
    """Ask every ``interval`` (2) seconds for ``timeout`` (60) seconds: ``healthy`` or ``unhealthy``."""
    return _operate("wait_for_healthy", service, options=options)


def service_status(service: str, host: str | None = None) -> Result:
    """Return ``running`` or ``stopped``; of one host also ``unhealthy`` and ``unreachable(Reason)``."""
    if host is None:
        return _operate("service_status", service, "process", options={})
    return _operate("service_status", service, "health", options={"host": host})


def rebuild_ledger(service: str, **options: OptionValue) -> HostResults:
    """Ask all hosts what is active there and record it, for a ledger that was lost.

    The results are ``recorded(Hash)``, ``none`` where nothing is active, or ``error(Reason)``.
    """
    result = _operate("rebuild_ledger", service, options=options)
    return HostResults(result.term, result.ok, result.events, result.run)


# ---- history ----------------------------------------------------------------------------------------


def history(service: str | None = None, **options: OptionValue) -> Runs:
    """Return the newest runs of a service, or of all services, newest first: a list of `Run`.

    Options are ``limit`` (100), ``since`` (in seconds since the epoch), ``host``, ``operation`` and ``unfinished``.
    """
    goal = "history(Service, Options, Runs)"
    bound: dict[str, Value] = {} if service is None else {"Service": service}
    return runs_of(_once(goal, Options=_options(options), **bound)["Runs"])  # type: ignore[arg-type]


def run_events(run: str) -> tuple[Event | Intent, ...]:
    """Return what happened in a run: an `Event` for each step, and an `Intent` for steps whose end is not recorded.

    Raises:
        ExistenceError: the ledger knows no such run.
    """
    events = _once("run_events(Run, Events)", Run=run)["Events"]
    return tuple(entry_of(event) for event in cast("Sequence[Value]", events))


def unfinished_runs(service: str | None = None) -> Runs:
    """Return the runs that were begun, did not end, and never will, because their process has ended."""
    bound: dict[str, Value] = {} if service is None else {"Service": service}
    return runs_of(_once("unfinished_runs(Service, Runs)", **bound)["Runs"])  # type: ignore[arg-type]


def _operate(
    name: str,
    service: str,
    *arguments: Value,
    options: Mapping[str, OptionValue],
    on_event: OnEvent | None = None,
) -> Result:
    """Perform an operation of every host of a service, and collect what happened.

    A first Ctrl-C cancels what is under way and has it undone before `KeyboardInterrupt` is raised, a second one
    leaves at once.
    """
    from unifyweaver_py.effects import new_run

    options = dict(options)
    on_event = options.pop("on_event", on_event)
    engine = _engine()
    listen = (lambda _: None) if on_event is None else (lambda event: on_event(event_of(event)))
    run = new_run(listen)
    try:
        answer = engine.once(
            "deployment_operations:perform(Run, Operation, Result, Events), "
            "( deployment_operations:good_result(Result) -> Ok = 1 ; Ok = 0 ), "
            "( deployment_journal:is_run(Operation) -> Own = 1 ; Own = 0 )",
            {"Run": run.id, "Operation": Term(name, (service, *arguments, _options(options)))},
            on_interrupt=run.cancel.set,
        )
    except KeyboardInterrupt:
        run.leave()
        raise
    finally:
        run.close()
    if answer is None:
        raise RuntimeError(f"{name} failed for {service}")
    if run.cancel.is_set():
        raise InterruptedOperation(name, service, answer["Result"])
    events = tuple(
        cast("Event", event_of(event)) for event in cast("Sequence[Value]", answer["Events"])
    )
    return Result(answer["Result"], answer["Ok"] == 1, events, run.id if answer["Own"] else None)
