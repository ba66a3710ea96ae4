"""What an operator does after a fault, and what is expected of it."""

from __future__ import annotations

import unifyweaver_py as uw
from tests.faults.invariants import Expected
from tests.site import Site


def again(site: Site, operation: str, version: str) -> tuple[uw.Result, Expected]:
    """The same again; after a rollback or a broken release, the newest good one once more."""
    if operation == "stop":
        return uw.graceful_stop(site.name), Expected((version,), running=False)
    if operation == "restart":
        return uw.restart_service(site.name), Expected((version,))
    site.release(version)
    deploy = uw.deploy_to_all_hosts if operation == "rollout" else uw.deploy_with_rollback
    return deploy(site.name), Expected((version,))


def recover(site: Site, operation: str, version: str) -> tuple[uw.Result, Expected]:
    """What was begun is finished or undone."""
    result = uw.recover(site.name)
    number = int(version)
    versions = (
        (version,) if operation in ("stop", "restart", "broken") else (version, str(number - 1))
    )
    return result, Expected(versions, running=None if operation == "stop" else True)


RECOVERIES = {"again": again, "recover": recover}
