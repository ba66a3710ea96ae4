"""The fixtures of the lab: five real hosts for the whole run, as new for every test, and a service to deploy there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.site import Site

from .lab import Lab, LabUnavailableError


@pytest.fixture(scope="session")
def running_lab() -> Iterator[Lab]:
    """Five hosts. Without a lab the test is skipped; on CI (`CI` is set) that is a failure."""
    with ExitStack() as stack:
        try:
            hosts = stack.enter_context(Lab(5))
        except LabUnavailableError as reason:
            if os.environ.get("CI"):
                pytest.fail(f"no lab, and on CI it must run: {reason}", pytrace=False)
            pytest.skip(f"no lab: {reason}")
        yield hosts


@pytest.fixture
def lab(running_lab: Lab) -> Lab:
    """The hosts of `running_lab`, each alive, with its link up, nothing running and an empty
    /srv.
    """
    running_lab.reset()
    return running_lab


@pytest.fixture
def site(tmp_path: Path, own_ledger: Path) -> Iterator[Site]:
    """The files of the service `web`; what is declared of it, and the ledger, end with the test."""
    yield Site(tmp_path / "site")
    uw.undeclare_service("web")
