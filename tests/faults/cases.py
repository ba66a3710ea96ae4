"""What can happen, and at which step of which operation."""

from __future__ import annotations

from dataclasses import dataclass

OPERATIONS = ("deploy", "rollback", "stop", "restart", "broken")  # on one host


@dataclass(frozen=True)
class Fault:
    """What happens at which point of a step, and how the script goes on after that."""

    name: str
    point: str
    how: str = "go"
    remote_only: bool = False

    @property
    def kills_controller(self) -> bool:
        return self.name.startswith("controller killed")


FAULTS = (
    Fault("controller killed before", "before"),
    Fault("controller killed during", "during", remote_only=True),
    Fault("controller killed after", "after"),
    Fault("connection cut before", "before", "die"),
    Fault("connection cut after", "after"),
    Fault("disk full", "before"),
    Fault("command fails", "instead", "fail", remote_only=True),
    Fault("host killed", "during", remote_only=True),
)


@dataclass(frozen=True)
class Case:
    """A fault at a step of an operation."""

    operation: str
    step: str
    fault: Fault
    then: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.fault.name} {self.step}, then {self.then}"
