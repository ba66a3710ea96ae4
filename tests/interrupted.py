"""What Ctrl-C must end, one function a situation: run as a script, or imported in a notebook.

    python -m tests.interrupted FOLDER SITUATION ROUNDS

FOLDER has `hosts.json`, the options of each host, and gets `log`: a line for each thing that happens, with the time
of the monotonic clock, which is one for all processes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import unifyweaver_py as uw
from tests.site import Site

FOR_EVER = "sleep 300"
SETTLED = "ready"


class Interrupted:
    """A service on the hosts of a folder; each method waits for what never comes."""

    def __init__(self, folder: Path) -> None:
        self._log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.site = _site(folder / "site")
        self.hosts: dict[str, dict[str, Any]] = json.loads((folder / "hosts.json").read_text())
        from unifyweaver_py import effects

        effects.set_ledger(folder / "ledger.sqlite3")
        self._waiting_at = ""

    def tell(self, what: str) -> None:
        os.write(self._log, f"{time.monotonic()} {what}\n".encode())

    def declare(self, **options: Any) -> None:
        self.site.declare(self.hosts, remote_dir="~/services", healthy_deadline=120, **options)

    def rounds(self, situation: str, number: int) -> None:
        """Be interrupted so many times, and go on."""
        self.begin(situation)
        for _ in range(number):
            try:
                self.once(situation)
            except KeyboardInterrupt:  # noqa: PERF203
                self.tell(SETTLED)
            else:
                self.tell("missed")
        assert uw.once("X = 1") == {"X": 1}

    def begin(self, situation: str) -> None:
        prepare: Callable[[], None] = getattr(self, f"before_{situation}", lambda: None)
        prepare()
        self.tell(SETTLED)

    def once(self, situation: str) -> None:
        wait: Callable[[], object] = getattr(self, situation)
        try:
            wait()
        except KeyboardInterrupt:
            self.tell("raised")
            raise

    # Prolog

    def iteration(self) -> None:
        self.tell("waiting")
        list(uw.query("repeat, fail"))

    def query(self) -> None:
        self.tell("waiting")
        uw.once("repeat, fail")

    def sleep(self) -> None:
        self.tell("waiting")
        uw.once("sleep(300)")

    # Operations

    def before_health(self) -> None:
        """Version 2 never answers when asked for its health."""
        self._first_version()
        self.site.release("2", "mute")
        self._waiting_at = "health"

    def health(self) -> object:
        return self.site.deploy(on_event=self._watch)

    def before_ssh(self) -> None:
        """Version 2 is active when a command is waited for that takes for ever."""
        self._first_version()
        self.site.release("2")
        uw.declare_lifecycle_hook("web", "post_deploy", uw.custom(FOR_EVER))
        self._waiting_at = "post_deploy_1"

    ssh = health

    def before_undo(self) -> None:
        """Undoing would take for ever as well."""
        self.before_ssh()
        uw.declare_lifecycle_hook("web", "pre_rollback", uw.custom(FOR_EVER))

    undo = health

    def before_long_undo(self) -> None:
        """The undoing would take for ever, but for its limit of two seconds."""
        self.declare(command_timeout=2)
        self.site.deploy()
        self.site.release("2", "mute")
        uw.declare_lifecycle_hook("web", "post_rollback", uw.custom(FOR_EVER))
        self._waiting_at = "health"

    long_undo = health

    def before_check(self) -> None:
        self.site.release("1", "healthy mute")
        self.declare()
        uw.deploy_service("web")

    def check(self) -> None:
        self.tell("waiting")
        uw.wait_for_healthy("web", timeout=300)

    def before_plan(self) -> None:
        self.declare()

    def plan(self) -> None:
        self.tell("waiting")
        uw.deployment_plan("web")

    def before_next(self) -> None:
        """What is next done with the service, whatever became of it."""
        self.declare()
        self.tell(f"did {self.site.deploy()}")

    def before_back(self) -> None:
        self.declare()
        self.tell(f"did {uw.rollback_service('web')}")

    def _first_version(self) -> None:
        self.site.release("1")
        self.declare()
        result = self.site.deploy()
        assert str(result) in ("deployed", "unchanged"), result

    def _watch(self, event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin):
            if self._waiting_at in event.steps:
                self.tell("waiting")
            elif any(step.startswith("undo_") for step in event.steps):
                self.tell("undoing")


def _site(folder: Path) -> Site:
    """The site of a folder, with the release that is there, if one is."""
    if not folder.exists():
        return Site(folder)
    version, behaviour = ((folder / name).read_text() for name in ("VERSION", "BEHAVIOUR"))
    site = Site(folder)
    site.release(version, behaviour)
    return site


if __name__ == "__main__":
    Interrupted(Path(sys.argv[1])).rounds(sys.argv[2], int(sys.argv[3]))
