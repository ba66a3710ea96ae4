"""One fault at one step of one operation, then recovery, then what must hold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tests.faults.bystander import bystander
from tests.faults.cases import FAULTS, Case, Fault
from tests.faults.controller import declare
from tests.faults.hosts import ROOT, Breakpoint, Host, wait_until
from tests.faults.invariants import Expected, standing, violations
from tests.faults.recovery import RECOVERIES, again
from tests.site import Site

SECONDS = 90.0


class Bench:
    """A service on hosts with breakpoints, with three releases, of which the newest is active and runs.

    What happens, happens to the last host.
    """

    def __init__(self, hosts: list[Host], folder: Path, **options: object) -> None:
        self.hosts = hosts
        self.host = hosts[-1]
        self.folder = folder
        self.own = Breakpoint(folder / "faults")
        self.own.folder.mkdir()
        self.number = self.broken = 0
        self.remote: set[str] = set()
        self.told = folder / "told.json"
        told = {
            "folder": str(folder / "site"),
            "hosts": {host.name: host.options for host in hosts},
            "options": {"remote_dir": "~/services", "healthy_deadline": 5, **options},
            "faults": str(self.own.folder),
            "suffers": self.host.name,
        }
        Site(folder / "site")
        self.told.write_text(json.dumps(told, default=str))
        self.site = declare(told)
        self.begin()

    @property
    def version(self) -> str:
        return str(self.number)

    def violations(self, expected: Expected) -> list[str]:
        return [
            f"{host.name}: {found}" for host in self.hosts for found in violations(host, expected)
        ]

    def begin(self) -> None:
        """Of a host without the service: three releases, one after another."""
        for _ in range(3):
            self.release()
        self.ready()

    def ready(self) -> None:
        """The newest release is active and runs, after whatever came before."""
        self.site.release(self.version)
        if self.violations(Expected((self.version,))):
            self.renew()

    def renew(self) -> None:
        """A new release is active and runs, and so did the one before it."""
        for _ in range(2):
            self.release()
        if found := self.violations(Expected((self.version,))):
            raise RuntimeError(f"not ready: {found}")

    def release(self) -> None:
        self.number += 1
        self.site.release(self.version)
        result = self.site.deploy()
        if str(result) != "deployed":
            raise RuntimeError(f"{result}: {[str(event) for event in result.events]}")

    def change(self, operation: str) -> None:
        """What is to be shipped is new where the operation ships anything."""
        if operation in ("deploy", "rollout"):
            self.number += 1
            self.site.release(self.version)
        elif operation == "broken":
            self.broken += 1
            self.site.release(f"{self.number} broken {self.broken}", "broken")

    def steps(self, operation: str) -> list[str]:
        """The steps of an operation that nothing happens to, and which of them scripts do."""
        self.change(operation)
        self.host.breakpoint.clear()
        self.own.clear()
        with self.controller(operation) as process:
            told = json.loads(process.communicate(timeout=SECONDS)[0])
        self.remote |= set(self.host.breakpoint.steps())
        assert "observe" in self.remote, "the host has no breakpoints"
        again(self.site, operation, self.version)
        return list(
            dict.fromkeys(
                step
                for host, step, _ in told["steps"]
                if host == self.host.name and step != "result"
            )
        )

    def cases(self, operation: str, then: str) -> list[Case]:
        """Every fault at every step."""
        return [
            Case(operation, step, fault, then)
            for step in self.steps(operation)
            for fault in FAULTS
            if self.suits(fault, step)
        ]

    def suits(self, fault: Fault, step: str) -> bool:
        """What the controller does itself is no command on the host."""
        return step in self.remote or not fault.remote_only

    @contextmanager
    def controller(self, operation: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "tests.faults.controller", str(self.told), operation]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def attempt(self, case: Case) -> list[str]:
        """What does not hold after the fault and the recovery from it."""
        self.ready()
        self.change(case.operation)
        at = self.host.breakpoint if case.step in self.remote else self.own
        self.own.clear()
        at.arm(case.fault.point, case.step)
        with bystander(self.site.folder) as other:
            with self.controller(case.operation) as process:
                wait_until(lambda: at.reached or process.poll() is not None, f"{case} not reached")
                if at.reached:
                    self.befall(case.fault, process)
                    at.go(case.fault.how)
                    self.await_lock(case)
                said = process.communicate(timeout=SECONDS)[0]
            found = self.undone(case, said) if at.reached else ["it was not reached"]
            self.host.free()
            lost = case.fault.name == "host killed"
            found += self.settle(case.operation, case.then, lost=lost) + other.suffered()
        return [*found, f"the controller said {said}"] if found else []

    def await_lock(self, case: Case) -> None:
        """Nobody can see a script that the controller has left and that has no lock yet."""
        if case.step == "lock" and case.fault.kills_controller:
            wait_until((self.host.dir / "run" / "lock").exists, "the lock was not taken")

    def undone(self, case: Case, said: str) -> list[str]:
        """What does not stand though a controller lived that could restore it, or said that it had."""
        cut = case.fault.name.startswith("connection cut")
        if case.operation == "stop" or not (
            cut or case.fault.name in ("command fails", "disk full")
        ):
            return []
        if json.loads(said)["kind"] == "not_restored":
            # Cut before it has the lock, a script may have begun or not.
            return ["it was not restored"] if cut and case.step != "lock" else []
        versions = (self.version, str(self.number - 1))
        return [f"before recovery, {found}" for found in standing(self.host, Expected(versions))]

    def interrupt(self, seconds: float, then: str) -> list[str]:
        """Kill a deployment's controller so many seconds after its start; what does not hold after recovery."""
        self.ready()
        self.change("deploy")
        with bystander(self.site.folder) as other:
            with self.controller("deploy") as process, suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            return self.settle("deploy", then) + other.suffered()

    def befall(self, fault: Fault, controller: subprocess.Popen[str]) -> None:
        if fault.kills_controller:
            controller.kill()
            controller.wait(SECONDS)
        elif fault.name.startswith("connection cut"):
            self.host.cut()
        elif fault.name == "disk full":
            self.host.fill()
        elif fault.name == "host killed":
            self.host.kill()

    def settle(self, operation: str, then: str, *, lost: bool = False) -> list[str]:
        """Recover, and what does not hold then. What ran on a host that was `lost` before anything began is too."""
        result, expected = RECOVERIES[then](self.site, operation, self.version)
        if lost and "nothing_to_recover" in str(result):
            expected = replace(expected, running=None)
        found = self.violations(expected)
        return found if result.ok else [f"recovery: {result}", *found]
