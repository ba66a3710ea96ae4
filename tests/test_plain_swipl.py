"""The rules in plain `swipl`, without Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def swipl(goal: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["swipl", "-q", "-f", "none", *more, "-g", goal, "-t", "halt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_loads_without_a_warning() -> None:
    done = swipl("use_module('prolog/deployment_glue')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_everything_above_the_effects_works() -> None:
    done = swipl(
        """use_module(library(deployment_glue)),
        declare_service(api, [host('a.example'), transport(http)]),
        declare_service_hosts(api, [host_config('b.example', [])]),
        service_hosts(S, [host_config(H, _)]), validate_security(api, Es),
        store_deployed_hash(api, h1), deployed_hash(api, D),
        print([S, H, Es, D])""",
        "-p",
        "library=prolog",
    )
    assert done.stdout == (
        "[api,'b.example',[remote_requires_encryption('a.example'),"
        "remote_requires_encryption('b.example')],h1]"
    )


def test_history_is_told_to_need_the_python_package() -> None:
    done = swipl("use_module(library(deployment_glue)), history(_, [], _)", "-p", "library=prolog")
    assert done.returncode != 0
    assert "ledger" in done.stderr
    assert "unifyweaver_py" in done.stderr


def test_what_needs_an_effect_names_it_and_the_python_package() -> None:
    done = swipl(
        """use_module(library(deployment_glue)),
        declare_service(api, []), run_health_check(api, [], _)""",
        "-p",
        "library=prolog",
    )
    assert done.returncode != 0
    assert "probe" in done.stderr
    assert "unifyweaver_py" in done.stderr
