"""Would the tests notice? Each exported predicate in turn does nothing, or fails, and its own tests are run.

`python tests/mutation.py [NAME ...]` prints a table, of all predicates or of those named, and exits with 1 when a
mutant was not noticed. `SUBJECTS` tells which tests are a predicate's own: the PlUnit files, which take less time,
first.

A mutant is a generated Prolog file that is loaded after the library: by `swipl` before PlUnit runs, by
`tests/conftest.py` before the first Python test.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
VARIABLE = "UNIFYWEAVER_MUTANT"
BODIES = {"does nothing": "true", "fails": "fail"}
SECONDS = 300.0
AT_ONCE = 2

PUBLIC = "tests/test_public.py::test_"
HISTORY = "tests/test_history.py::test_"
DECLARING = ("tests/prolog/declarations.plt", "tests/test_api.py")
SECURITY = ("tests/prolog/security.plt", "tests/test_api.py")
LEDGER = ("tests/prolog/ledger.plt", f"{PUBLIC}hashes", "tests/test_api.py")
SCRIPTS = ("tests/prolog/generate.plt", "tests/test_script_sources.py")

# Predicate -> the tests that are to notice.
SUBJECTS: dict[str, tuple[str, ...]] = {
    "declare_service/2": DECLARING,
    "service_config/2": DECLARING,
    "undeclare_service/1": DECLARING,
    "declare_deploy_method/3": DECLARING,
    "deploy_method_config/3": DECLARING,
    "declare_service_sources/2": DECLARING,
    "service_sources/2": DECLARING,
    "declare_lifecycle_hook/3": DECLARING,
    "lifecycle_hooks/2": DECLARING,
    "declare_service_hosts/2": DECLARING,
    "service_hosts/2": DECLARING,
    "service_host/3": DECLARING,
    "declare_load_balancer/2": ("tests/prolog/balancing.plt",),
    "load_balancer_config/2": ("tests/prolog/balancing.plt",),
    "validate_security/2": SECURITY,
    "requires_encryption/1": SECURITY,
    "is_local_service/1": SECURITY,
    "compute_source_hash/2": LEDGER,
    "release_hash/2": LEDGER,
    "check_for_changes/2": LEDGER,
    "check_for_changes/3": LEDGER,
    "store_deployed_hash/2": LEDGER,
    "deployed_hash/2": LEDGER,
    "deployed_hash/3": LEDGER,
    "store_rollback_hash/2": LEDGER,
    "rollback_hash/2": LEDGER,
    "rollback_hash/3": LEDGER,
    "deploy_service/2": (f"{PUBLIC}deploy_service",),
    "deploy_service/3": (f"{PUBLIC}deploy_service",),
    "deploy_with_hooks/2": (f"{PUBLIC}deploy_with_hooks",),
    "deploy_with_rollback/2": (f"{PUBLIC}deploy_with_rollback",),
    "deploy_with_rollback/3": (f"{PUBLIC}deploy_with_rollback",),
    "deploy_to_all_hosts/2": (f"{PUBLIC}deploy_to_all_hosts",),
    "deploy_to_all_hosts/3": (f"{PUBLIC}deploy_to_all_hosts",),
    "declare_rollout/2": ("tests/prolog/rollout.plt",),
    "rollout_config/2": (f"{PUBLIC}rollout",),
    "resume_rollout/2": (f"{PUBLIC}rollout",),
    "fleet_status/2": (f"{PUBLIC}rollout",),
    "recover/2": (f"{PUBLIC}recover",),
    "recover/3": (f"{PUBLIC}recover",),
    "deployment_plan/3": (f"{PUBLIC}deployment_plan",),
    "rollback_service/2": (f"{PUBLIC}rollback_service",),
    "rollback_service/3": (f"{PUBLIC}rollback_service",),
    "start_service/2": (f"{PUBLIC}stop_start_and_restart",),
    "stop_service/2": (f"{PUBLIC}stop_start_and_restart",),
    "restart_service/2": (f"{PUBLIC}stop_start_and_restart",),
    "lock_service/2": (f"{PUBLIC}lock_by_hand",),
    "lock_service/3": (f"{PUBLIC}lock_by_hand",),
    "unlock_service/2": (f"{PUBLIC}lock_by_hand",),
    "lock_status/2": (f"{PUBLIC}lock_by_hand",),
    "graceful_stop/3": (f"{PUBLIC}other_ways_to_stop",),
    "drain_connections/3": (f"{PUBLIC}drain_connections",),
    "force_stop_service/3": (f"{PUBLIC}other_ways_to_stop",),
    "execute_hooks/3": (f"{PUBLIC}execute_hooks",),
    "run_health_check/3": (f"{PUBLIC}health",),
    "wait_for_healthy/3": (f"{PUBLIC}health",),
    "service_status/2": (f"{PUBLIC}status",),
    "service_status/3": (f"{PUBLIC}status",),
    "rebuild_ledger/2": (f"{HISTORY}ledger_is_rebuilt_from_the_hosts",),
    "history/3": (f"{HISTORY}run_tells_who_what_and_what_became_of_it",),
    "run_events/2": (f"{HISTORY}run_tells_who_what_and_what_became_of_it",),
    "unfinished_runs/2": (f"{HISTORY}run_whose_controller_was_killed_is_unfinished",),
    "generate_deploy_script/3": SCRIPTS,
    "generate_ssh_deploy/3": SCRIPTS,
    "generate_rollback_script/3": SCRIPTS,
    "generate_health_check_script/3": (
        *SCRIPTS,
        "tests/test_options.py::test_health_script_has_its_retries_and_timeout",
    ),
    "generate_systemd_unit/3": (*SCRIPTS, "tests/test_supervisor.py"),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A predicate, `module:name/arity`, and what it does instead."""

    module: str
    indicator: str
    manner: str

    def file(self, folder: Path) -> Path:
        """Write the Prolog file that makes the predicate so."""
        name, _, arity = self.indicator.partition("/")
        path = folder / f"{name}-{arity}-{BODIES[self.manner]}.pl"
        arguments = ", ".join("_" * int(arity))
        path.write_text(
            ":- use_module(library(prolog_wrap)).\n"
            f":- wrap_predicate({self.module}:{name}({arguments}), mutant, _, {BODIES[self.manner]}).\n"
        )
        return path


@dataclass(frozen=True)
class Trial:
    """What became of a mutant: the test file that noticed it, or None."""

    mutant: Mutant
    noticed_by: str | None
    seconds: float


def exported() -> dict[str, str]:
    """The predicates that the library exports, each with the module that defines it."""
    goal = (
        "use_module(library(deployment_glue)), module_property(deployment_glue, exports(All)), "
        "forall(member(N/A, All), ( functor(Head, N, A), "
        "( predicate_property(deployment_glue:Head, imported_from(M)) -> true ; M = deployment_glue ), "
        "writeln(N/A:M) ))"
    )
    lines = _swipl("-g", goal, "-t", "halt").stdout.splitlines()
    return dict(line.rsplit(":", 1) for line in lines)  # type: ignore[arg-type]


def _swipl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["swipl", "-q", "-f", "none", "--no-packs", "-p", "library=prolog", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def passes(test: str, mutant: Path | None) -> bool:
    """Whether a PlUnit file, or the Python tests that are named, pass; one that does not end fails."""
    try:
        return (_plunit if test.endswith(".plt") else _pytest)(test, mutant)
    except subprocess.TimeoutExpired:
        return False


def _plunit(test: str, mutant: Path | None) -> bool:
    load = () if mutant is None else ("-g", f"load_files('{mutant}')")
    done = _swipl("--on-error=status", *load, "-g", "run_tests", "-t", "halt", test)
    return done.returncode == 0


def _pytest(test: str, mutant: Path | None) -> bool:
    environment = dict(os.environ) if mutant is None else {**os.environ, VARIABLE: str(mutant)}
    options = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, test],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        env=environment,
        check=False,
    )
    return done.returncode == 0


def trial(mutant: Mutant, folder: Path) -> Trial:
    """Run the tests of the mutant's subject until one notices."""
    file = mutant.file(folder)
    began = time.monotonic()
    tests = SUBJECTS[mutant.indicator]
    noticed = next((test for test in tests if not passes(test, file)), None)
    return Trial(mutant, noticed, time.monotonic() - began)


def trials(names: Sequence[str] = ()) -> Iterator[Trial]:
    """Try the mutants of all exported predicates, or of those named.

    Raises:
        ValueError: a predicate has no tests in `SUBJECTS`, is not exported, or its tests fail without a mutant.
    """
    modules = exported()
    if strangers := set(modules) ^ set(SUBJECTS):
        raise ValueError(f"exported and not in SUBJECTS, or the reverse: {sorted(strangers)}")
    chosen = [one for one in modules if not names or one in names or one.split("/")[0] in names]
    mutants = [Mutant(modules[one], one, manner) for one in chosen for manner in BODIES]
    tests = dict.fromkeys(test for one in chosen for test in SUBJECTS[one])
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        healthy = list(pool.map(lambda test: passes(test, None), tests))
        if broken := [test for test, well in zip(tests, healthy, strict=True) if not well]:
            raise ValueError(f"these fail without any mutant: {broken}")
        yield from pool.map(lambda mutant: trial(mutant, Path(folder)), mutants)


def main() -> int:
    """Print a line a mutant; the exit status is 1 when one was not noticed."""
    unnoticed = 0
    for done in trials(sys.argv[1:]):
        unnoticed += done.noticed_by is None
        noticed = done.noticed_by or "NOBODY NOTICED"
        words = (
            f"{done.mutant.indicator:32} {done.mutant.manner:13} {done.seconds:5.1f} s  {noticed}"
        )
        print(words, flush=True)
    print(f"{unnoticed} not noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
