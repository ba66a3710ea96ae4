"""Hosts that lack what a deployment needs: it says what, and what to do, and leaves nothing half done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.lab.lab import Host, Lab
from tests.lab.test_deploy import answer, backup, current, declare, servers, steps
from tests.site import Site

HAVE_SH = "let the user have sh there: as the login shell, and as a command"
LET_WRITE = "let the user write there, or declare another user or remote_dir"


class Limited:
    """A host whose accounts and tools are not what they were, until the test ends."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._mounts: list[str] = []

    def mount(self, options: str, folder: str) -> None:
        self.host.check(f"mount {options} {folder}")
        self._mounts.append(folder)

    def login_shell(self, path: str) -> None:
        """Root logs in with this shell; there is a user `limited` too, with sh."""
        lines = Path("/etc/passwd").read_text().splitlines()
        others = [line for line in lines if not line.startswith("root:")]
        accounts = [f"root:x:0:0::/root:{path}", *others, "limited:x:4242:4242::/tmp:/bin/sh"]
        (self.host.srv / "passwd").write_text("\n".join([*accounts, ""]))
        secrets = "".join(f"{name}:*:19000:0:99999:7:::\n" for name in ("root", "limited"))
        (self.host.srv / "secrets").write_text(secrets)
        self.mount("--bind /srv/passwd", "/etc/passwd")
        self.mount("--bind /srv/secrets", "/etc/shadow")

    def without(self, *tools: str) -> None:
        """The tools are not found there any more."""
        folder = self.host.srv / "bin"
        folder.mkdir()
        for place in ("/usr/sbin", "/usr/bin", "/bin", "/sbin"):
            for tool in Path(place).iterdir():
                link = folder / tool.name
                if tool.name not in tools and not link.is_symlink():
                    link.symlink_to(tool)
        shell = self.host.srv / "shell"
        shell.write_text('#!/bin/bash\nexport PATH=/srv/bin\nexec /bin/bash "$@"\n')
        shell.chmod(0o755)
        self.login_shell("/srv/shell")

    def restore(self) -> None:
        while self._mounts:
            self.host.check(f"umount {self._mounts.pop()}")


@pytest.fixture
def limited(lab: Lab) -> Iterator[Limited]:
    host = Limited(lab.hosts[0])
    yield host
    host.restore()


def found(host: Host) -> object:
    """What is active on the host, what runs there, and what is kept there."""
    folder = host.srv / "services" / "web" / "releases"
    releases = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return current(host), backup(host), servers(host), releases, answer(host)


def in_words(result: object) -> tuple[str, str]:
    told = uw.once("deployment_narration:result_text(Result, Text)", Result=result)
    advice = uw.once("deployment_narration:advice(Result, Text)", Result=result)
    assert told is not None
    assert advice is not None, result
    return str(told["Text"]), str(advice["Text"])


def refused(site: Site, host: Host) -> tuple[str, str]:
    """What is said of the deployment of a second release, which leaves the first as it was."""
    before = found(host)
    site.release("2")
    result = site.deploy()
    assert not result.ok
    assert found(host) == before
    assert answer(host) == "1"
    return in_words(result.term)


def deployed(site: Site, lab: Lab) -> Host:
    declare(site, lab, lab.hosts[0])
    assert str(site.deploy()) == "deployed"
    return lab.hosts[0]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/usr/sbin/nologin", "This account is currently not available."),
        ("/bin/false", "the login did not run sh"),
    ],
)
def test_user_who_may_not_log_in_is_told_and_what_runs_goes_on(
    lab: Lab, site: Site, limited: Limited, path: str, said: str
) -> None:
    host = deployed(site, lab)
    limited.login_shell(path)
    assert refused(site, host) == (f"not deployed: a command ended with 1: {said}", HAVE_SH)
    status = uw.service_status("web", host.address)
    assert in_words(status.term) == (f"unreachable: a command ended with 1: {said}", HAVE_SH)
    for operation in (uw.rollback_service, uw.stop_service, uw.graceful_stop):
        assert in_words(operation("web").term)[1] == HAVE_SH
    assert answer(host) == "1"


def test_host_without_sh_is_told_and_what_runs_goes_on(
    lab: Lab, site: Site, limited: Limited
) -> None:
    host = deployed(site, lab)
    limited.without("sh", "dash")
    words, advice = refused(site, host)
    assert words.startswith("not deployed: a command ended with 127: ")
    assert words.endswith("sh: command not found")
    assert advice == HAVE_SH


@pytest.mark.parametrize("tool", ["tar", "sha256sum"])
def test_host_without_a_tool_is_told_and_what_runs_goes_on(
    lab: Lab, site: Site, limited: Limited, tool: str
) -> None:
    host = deployed(site, lab)
    limited.without(tool)
    words, _ = refused(site, host)
    assert f"{tool}: not found" in words


def test_host_without_python_is_told_and_nothing_is_left_active(
    lab: Lab, site: Site, limited: Limited
) -> None:
    host = lab.hosts[0]
    limited.without(*{tool.name for tool in Path("/usr/bin").glob("python*")}, "python3")
    declare(site, lab, host)
    result = site.deploy()
    assert str(result) == "rolled_back_after_failure(error(no_rollback_available))"
    start = steps(result)["start"]
    advice = (
        "install on the host what the service is started with, or correct target or start_command"
    )
    assert in_words(start.outcome) == ("the process ended with 127", advice)
    assert "python3: not found" in str(start.notes)
    assert found(host) == ("", "", [], [], "")
    assert uw.deployed_hash("web") is None
    limited.restore()
    assert str(site.deploy()) == "deployed"


def test_user_who_may_not_write_is_told_and_what_runs_goes_on(
    lab: Lab, site: Site, limited: Limited
) -> None:
    host = deployed(site, lab)
    limited.login_shell("/bin/sh")
    declare(site, lab, host, user="limited")
    words, advice = refused(site, host)
    assert words.startswith("not deployed: a command ended with ")
    assert "Permission denied" in words
    assert "/srv/services/web" in words
    assert advice == LET_WRITE


def test_disk_that_may_not_be_written_is_told_and_what_runs_goes_on(
    lab: Lab, site: Site, limited: Limited
) -> None:
    host = deployed(site, lab)
    limited.mount("--bind -o ro /srv/services", "/srv/services")
    words, advice = refused(site, host)
    assert "Read-only file system" in words
    assert advice == LET_WRITE


def test_one_host_that_lacks_something_does_not_hold_up_another(
    lab: Lab, site: Site, limited: Limited
) -> None:
    first, second = lab.hosts[:2]
    declare(site, lab, first, second)
    site.deploy()
    limited.login_shell("/usr/sbin/nologin")
    site.release("2")
    result = site.deploy()
    assert str(result.hosts[second.address]) == "deployed"
    assert in_words(result.hosts[first.address])[1] == HAVE_SH
    assert (answer(first), answer(second)) == ("1", "2")
