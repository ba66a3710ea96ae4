"""A controller that a test may kill: `python -m tests.faults.controller FILE OPERATION` does it, and tells what it saw.

FILE is JSON: `folder` of the site, `hosts` with their options, `options` of the declaration, and `faults`, the folder
of a breakpoint (see hosts.py) at which it stops before or after a step that it does itself for the host `suffers`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import unifyweaver_py as uw
from tests.site import Site
from unifyweaver_py._reports import kind_of

OPERATIONS: dict[str, Callable[..., uw.Result]] = {
    "deploy": uw.deploy_with_rollback,
    "broken": uw.deploy_with_rollback,
    "rollback": uw.rollback_service,
    "stop": uw.graceful_stop,
    "restart": uw.restart_service,
    "rollout": uw.deploy_to_all_hosts,
}
HOOKS = {"pre_deploy": "true", "pre_shutdown": "true", "post_deploy": "true"}
PATIENCE = 30.0


def declare(told: dict[str, Any]) -> Site:
    site = Site(Path(told["folder"]), fresh=False)
    site.declare(told["hosts"], **told["options"])
    for event, command in HOOKS.items():
        uw.declare_lifecycle_hook("web", event, uw.custom(command))
    if len(told["hosts"]) > 1:
        uw.declare_rollout("web", batches=[1, "100%"])
    return site


class Watch:
    """Hears of every step on a host, and stops where it is told."""

    def __init__(self, faults: Path, host: str) -> None:
        self._faults = faults
        self._host = host

    def __call__(self, event: uw.Event | uw.Begin) -> None:
        if event.host != self._host:
            return
        if isinstance(event, uw.Begin):
            for step in event.steps:
                self._halt("before", step)
        else:
            self._halt("after", event.step)

    def _halt(self, point: str, step: str) -> None:
        at = self._faults / "at"
        if not at.exists() or at.read_text() != f"{point} {step}\n":
            return
        at.rename(self._faults / "reached")
        deadline = time.monotonic() + PATIENCE
        while not (self._faults / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        (self._faults / "go").unlink(missing_ok=True)


def main(file: Path, operation: str) -> None:
    told = json.loads(file.read_text())
    declare(told)
    result = OPERATIONS[operation]("web", on_event=Watch(Path(told["faults"]), told["suffers"]))
    steps = [(event.host, event.step, str(event.outcome)) for event in result.events]
    kind = kind_of(OPERATIONS[operation].__name__, result.term)
    print(json.dumps({"result": str(result), "kind": kind, "ok": result.ok, "steps": steps}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
