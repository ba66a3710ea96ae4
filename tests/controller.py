"""A controller in a process of its own: `python -m tests.controller FILE` deploys the site that a JSON file tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import unifyweaver_py as uw
from tests.site import Site

ROOT = Path(__file__).parents[1]


def begin(
    site: Site,
    hosts: Sequence[str],
    options: Mapping[str, Any],
    method: str = "ssh",
    *,
    hook: str | None = None,
    before: str | None = None,
    stopped: str | None = None,
    rollout: Mapping[str, Any] | None = None,
    **call: float,
) -> subprocess.Popen[str]:
    """Start one, that prints the result. `before` is a command before the deployment, `stopped` one between stop and
    switch and `hook` one after the switch; `rollout` is declared, and deployed by, where it is given; `call` are
    options of the deployment.
    """
    file = site.folder.with_suffix(".json")
    told = {
        "folder": str(site.folder), "hosts": hosts, "options": options, "method": method,
        "post_deploy": hook, "pre_deploy": before, "post_shutdown": stopped, "rollout": rollout,
    }  # fmt: skip
    file.write_text(json.dumps({**told, "call": call}))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.controller", file],
        cwd=ROOT,
        env={**os.environ, "UNIFYWEAVER_LEDGER": str(file.with_suffix(".sqlite3"))},
        stdout=subprocess.PIPE,
        text=True,
    )


def main(file: Path) -> None:
    told = json.loads(file.read_text())
    site = Site(Path(told["folder"]), fresh=False)
    site.declare({host: {} for host in told["hosts"]}, told["method"], **told["options"])
    for event in ("pre_deploy", "post_shutdown", "post_deploy"):
        if told[event]:
            uw.declare_lifecycle_hook("web", event, uw.custom(told[event]))
    if told["rollout"] is None:
        print(site.deploy(**told["call"]))
    else:
        uw.declare_rollout("web", **told["rollout"])
        print(uw.deploy_to_all_hosts("web", **told["call"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
