"""What holds on a host after recovery, whatever happened before."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import unifyweaver_py as uw
from tests.faults.hosts import Host


@dataclass(frozen=True)
class Expected:
    """The versions of which one is active, and whether it runs; None: either may be."""

    versions: tuple[str, ...]
    running: bool | None = True


def violations(host: Host, expected: Expected) -> list[str]:
    """What does not hold after recovery, in words."""
    found = standing(host, expected)
    if (lock := host.dir / "run" / "lock").exists():
        found.append(f"a lock was left: {(lock / 'who').read_text().strip()}")
    return found + ledger(host)


def standing(host: Host, expected: Expected) -> list[str]:
    """What of that does not hold already where a controller lives to undo what failed."""
    found = []
    for link in ("current", ".backup"):
        found += whole(host.dir, link)
    if release_of(host.dir, "current") == release_of(host.dir, ".backup"):
        found.append("the rollback point is the active release itself")
    running = bool(host.servers()) if expected.running is None else expected.running
    return found + process(host, running) + version(host, expected.versions, running)


def release_of(folder: Path, link: str) -> str:
    path = folder / link
    return Path(os.readlink(path)).name if path.is_symlink() else ""


def whole(folder: Path, link: str) -> list[str]:
    """The link names a release, and all of it is as it was shipped."""
    if not release_of(folder, link):
        return [f"there is no {link}"]
    command = ["sha256sum", "-c", "--quiet", ".unifyweaver/manifest"]
    done = subprocess.run(
        command, cwd=folder / link, capture_output=True, text=True, timeout=30, check=False
    )
    return [f"{link} is not whole: {done.stdout}{done.stderr}"] if done.returncode else []


def process(host: Host, running: bool) -> list[str]:
    """What runs is what was recorded, of the active release, and nothing beside it."""
    servers = host.servers()
    if not running:
        return [f"processes run, and none was asked for: {servers}"] if servers else []
    recorded = (host.dir / "run" / "process").read_text().split()
    current = release_of(host.dir, "current")
    if len(servers) != 1 or not recorded:
        return [f"one process should run: {servers}, recorded {recorded}"]
    if recorded[0] != str(servers[0]):
        return [f"recorded is process {recorded[0]}, and {servers[0]} runs"]
    return [] if recorded[3] == current else [f"{recorded[3]} runs, and {current} is active"]


def version(host: Host, versions: tuple[str, ...], running: bool) -> list[str]:
    found = []
    active = (host.dir / "current" / "VERSION").read_text()
    if active not in versions:
        found.append(f"version {active} is active, not {' or '.join(versions)}")
    answer = host.answer()
    if answer != (active if running else ""):
        found.append(f"version {active} is active, and the service answers {answer!r}")
    return found


def ledger(host: Host) -> list[str]:
    """The ledger tells what is on the host."""
    asked = {
        "current": uw.deployed_hash("web", host.name),
        ".backup": uw.rollback_hash("web", host.name),
    }
    links = {link: release_of(host.dir, link).partition("-")[0] for link in asked}
    return [
        f"{link} is {there}, and the ledger says {asked[link]}"
        for link, there in links.items()
        if asked[link] != there
    ]
