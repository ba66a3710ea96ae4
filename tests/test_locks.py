"""The lock of a service's host where it is hard to keep: crashes, renames that cross, names that are no words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests import controller
from tests.site import Site

RULES = Path(uw.__file__).parent.parent / "prolog" / "deployment"
FUNCTIONS = "".join((RULES / f"{name}.sh").read_text() for name in ("target", "intent", "watchdog"))
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
WHO = "another/pid:[1] 1 1 alice@laptop 1700000000 deployment\n"


def now() -> int:
    """Centiseconds since boot."""
    return int(float(Path("/proc/uptime").read_text().split()[0]) * 100)


class Host:
    """A service's folder; scripts are run there by `sh`, as the tokens' operations."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder / "web"
        self.lock = self.dir / "run" / "lock"
        (self.dir / "run").mkdir(parents=True)

    def held(self, token: str, pid: int = 1, expiry: int | None = None, boot: str = BOOT) -> None:
        """By an operation of another machine; its lease is over unless `expiry` says when."""
        self.lock.mkdir(exist_ok=True)
        (self.lock / "who").write_text(WHO)
        record = f"{token} {pid} 1 {boot} {now() - 100 if expiry is None else expiry} 30"
        (self.lock / "holder").write_text(f"{record:199}\n")

    @property
    def holder(self) -> str:
        return (self.lock / "holder").read_text().split()[0] if self.lock.exists() else ""

    def text(self, token: str, *lines: str) -> str:
        return "\n".join([
            FUNCTIONS, "installed() { false; }", "remove_unit() { :; }",
            f"service=web token={token} dir='{self.dir}'", f"controller='{WHO.strip()}'", *lines,
        ]) + "\n"  # fmt: skip

    def file(self, token: str, *lines: str) -> Path:
        path = self.dir / f"{token}.sh"
        path.write_text(self.text(token, *lines))
        return path

    def run(self, token: str, *lines: str) -> list[str]:
        """What the script reports, without the times."""
        script = subprocess.run(
            ["sh", self.file(token, *lines)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        return [line.split(" ", 1)[1] for line in script.stdout.splitlines()]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def site(tmp_path: Path, free_port: int, own_ledger: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    site.declare({"localhost": {}}, "local", remote_dir=str(tmp_path), port=free_port)
    yield site
    uw.force_stop_service("web", 0)
    uw.undeclare_service("web")


@pytest.mark.parametrize(
    ("who", "holder"),
    [("", ""), (WHO, ""), ("", None), (None, ""), ("alice\n", None), (WHO, "other 1"),
     (WHO, "other a b c d e\n"), ("\0" * 60, "\0" * 200)],
)  # fmt: skip
def test_lock_that_a_crash_left_half_there_is_taken_over(
    host: Host, site: Site, who: str | None, holder: str | None
) -> None:
    host.held("other")
    for name, text in (("who", who), ("holder", holder)):
        if text is not None:
            (host.lock / name).write_text(text)
    assert str(site.deploy()) == "deployed"
    assert not host.lock.exists()


def test_lease_of_a_clock_that_is_no_more_is_over(host: Host, site: Site) -> None:
    """A container that was started anew has the kernel's boot still, and a clock of its own."""
    host.held("other", expiry=now() * 100)
    assert str(site.deploy()) == "deployed"


def test_pid_of_an_earlier_boot_is_nobodys(host: Host, site: Site) -> None:
    with subprocess.Popen(["sleep", "30"]) as bystander:
        try:
            stat = Path(f"/proc/{bystander.pid}/stat").read_text()
            host.held("other", bystander.pid, boot="earlier")
            text = (host.lock / "holder").read_text()
            born = stat.rsplit(")", 1)[1].split()[19]
            words = text.split()
            words[2] = born
            (host.lock / "holder").write_text(" ".join(words) + "\n")
            assert str(site.deploy()) == "deployed"
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_lock_that_cannot_be_taken_over_is_told(
    host: Host, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.held("other")
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "mv"
    shim.write_text("#!/bin/sh\necho mv: Permission denied >&2\nexit 1\n")
    shim.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
        result = uw.stop_service("web")
    assert str(result) == 'error(command_failed(1,["mv: Permission denied"]))'


def test_lease_that_was_renewed_meanwhile_is_kept(host: Host) -> None:
    host.held("other", expiry=now() + 2000)
    assert host.run("late", "step t take_over other expired")[-1] == "end t ok"
    assert host.holder == "other"
    assert host.run("late", "step t take_over other ended")[-1] == "end t ok"
    assert host.holder == ""


def test_late_taking_over_leaves_the_next_holder_alone(host: Host) -> None:
    """Between its look at the record and its rename, another took over and locked."""
    host.held("dead")
    next_one = host.file("next", "step t take_over dead expired", "step l lock 30 none none")
    late = (
        f"mv() {{ unset -f mv; sh '{next_one}'; command mv \"$@\"; code=$?; "
        f"[ -d '{host.lock}' ] || : >'{host.dir}/lost'; return $code; }}"
    )
    host.run("late", late, "step t take_over dead expired")
    assert host.holder == "next"
    assert not (host.dir / "lost").exists()
    assert host.run("next", "step u unlock")[-1] == "end u ok"
    assert [path.name for path in (host.dir / "run").iterdir()] == ["spare"]


def test_script_that_begins_while_it_is_dispossessed_is_ended(host: Host) -> None:
    host.held("slow")
    begun, changed = host.dir / "begun", host.dir / "changed"
    acts = f"acts() {{ : >'{begun}'; sleep 2; : >'{changed}'; }}"
    slow = host.file("slow", acts, "step a acts")
    crossing = (
        f"mv() {{ unset -f mv; setsid sh '{slow}' >/dev/null 2>&1 3>&- & "
        f"while [ ! -e '{begun}' ]; do sleep 0.01; done; command mv \"$@\"; }}"
    )
    assert host.run("next", crossing, "step t take_over slow expired")[-1] == "end t ok"
    time.sleep(2.5)
    assert not changed.exists()


def test_renewal_never_writes_into_the_record_of_the_next(host: Host) -> None:
    """The lock was taken over, and locked anew, between the look and the renewal."""
    assert host.run("slow", "step l lock 30 none none")[-1] == "end l ok"
    next_one = host.file("next", "step t take_over slow ended", "step l lock 30 none none")
    once = f"{host.dir}/once"
    crossing = (
        f"clock() {{ [ -e '{once}' ] || {{ : >'{once}'; sh '{next_one}' >'{host.dir}/said'; }}; "
        f"now=1; }}"
    )
    said = host.run("slow", "end_script() { :; }", crossing, "step p prune 1")
    assert said[-1] == "end p failed lock_lost"
    assert host.holder == "next"


def test_command_that_ignores_its_end_has_ended_when_its_lock_is_taken(host: Host) -> None:
    begun, changed = host.dir / "begun", host.dir / "changed"
    command = f"trap '' TERM; : >{begun}; sleep 1; sleep 1; sleep 1; sleep 1; : >{changed}"
    host.file("old", "step l lock 30 none none", f'step c run_command 60 "{command}"')
    with subprocess.Popen(["setsid", "sh", host.dir / "old.sh"], stdout=subprocess.DEVNULL):
        while not begun.exists():
            time.sleep(0.02)
        assert host.run("next", "step t take_over old ended")[-1] == "end t ok"
        assert str(changed) not in commands()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_full_disk_does_not_keep_a_service_running(host: Host, site: Site) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", host.dir], check=True)
    try:
        assert str(site.deploy()) == "deployed"
        with suppress(OSError), (host.dir / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert str(uw.stop_service("web")) == "stopped"
        assert str(uw.start_service("web")) == "started"
        assert str(uw.stop_service("web")) == "stopped"
        assert not host.lock.exists()
    finally:
        subprocess.run(["umount", "-l", host.dir], check=True)


@pytest.mark.parametrize("lease", [0.001, 1e17, 1e300])
def test_lease_of_any_length(site: Site, tmp_path: Path, lease: float) -> None:
    look = f"cat {tmp_path}/web/run/lock/holder > {tmp_path}/seen"
    uw.declare_lifecycle_hook("web", "post_deploy", uw.custom(look))
    assert str(site.deploy(lease=lease)) == "deployed"
    seconds = int((tmp_path / "seen").read_text().split()[5])
    assert 31 <= seconds <= 1_000_000_000


def test_name_that_is_no_text_does_not_matter(site: Site, tmp_path: Path) -> None:
    code = "import unifyweaver_py as uw; assert uw.once('deployment_controllers:controller(test, Words)')"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environb, b"LOGNAME": b"\xff\xfe"}
    )


def test_rollback_point_that_changed_between_look_and_lock_is_kept(host: Host, site: Site) -> None:
    """Two deployments came between, and the same release is active again; then this one fails."""
    assert str(site.deploy()) == "deployed"
    go_ahead = host.dir / "go-ahead"
    wait = f"while [ ! -e '{go_ahead}' ]; do sleep 0.02; done"
    late = Site(host.dir.parent / "late")
    late.release("3", "broken")
    port = (host.dir / "current/.unifyweaver/port").read_text().strip()
    options = {"remote_dir": str(host.dir.parent), "port": int(port), "healthy_deadline": 5}
    with controller.begin(late, ["localhost"], options, "local", before=wait) as process:
        while f"'{go_ahead}'" not in commands():
            time.sleep(0.02)
        site.release("2")
        assert str(site.deploy()) == "deployed"
        site.release("1")
        assert str(site.deploy()) == "deployed"
        backup = os.readlink(host.dir / ".backup")
        go_ahead.touch()
        said = process.communicate(timeout=60)[0]
    assert said.startswith("rolled_back_after_failure(rolled_back(")
    assert os.readlink(host.dir / ".backup") == backup


def test_lock_that_a_lost_script_gave_back_is_regained(host: Host) -> None:
    assert host.run("own", "step l lock 30 none none", "step u unlock")[-1] == "end u ok"
    assert host.holder == ""
    assert host.run("own", "step r regain 0", "step p prune 1", "step u unlock")[-1] == "end u ok"
    assert [path.name for path in (host.dir / "run").glob("[!s]*")] == []


def test_lock_that_is_still_held_is_regained_and_its_script_ended(host: Host) -> None:
    host.run("own", "step l lock 30 none none")
    begun = host.dir / "begun"
    acts = f"acts() {{ : >'{begun}'; sleep 20; }}"
    with subprocess.Popen(
        ["setsid", "sh", host.file("own", acts, "step a acts", "step u unlock")]
    ) as script:
        while not begun.exists():
            time.sleep(0.01)
        assert host.run("own", "step r regain 0", "step p prune 1")[-1] == "end p ok"
        assert script.wait(5) == 143
    assert host.holder == "own"


@pytest.mark.parametrize("at_work", [False, True])
def test_lock_that_somebody_had_since_is_not_regained(host: Host, at_work: bool) -> None:
    host.run("own", "step l lock 30 none none", "step u unlock")
    host.run("other", "step l lock 30 none none", *([] if at_work else ["step u unlock"]))
    assert host.run("own", "step r regain 0", "step p prune 1")[-1] == "end r failed not_regained"
    assert host.holder == ("other" if at_work else "")
    assert host.run("own", "step r regain 0")[-1] == "end r failed not_regained"


def test_lock_of_another_can_be_regained_by_it_all_the_same(host: Host) -> None:
    host.run("other", "step l lock 30 none none", "step u unlock")
    assert host.run("own", "step r regain 0")[-1] == "end r failed not_regained"
    assert host.run("other", "step r regain 0")[-1] == "end r ok"


def test_lock_that_was_never_had_is_not_regained(host: Host) -> None:
    """It was refused; who had it is gone, and was dispossessed."""
    host.held("other", expiry=now() + 2000)
    assert host.run("own", "step l lock 30 none none")[-1].startswith("end l failed held ")
    host.run("third", "step t take_over other ended")
    assert host.run("own", "step r regain 0")[-1] == "end r failed not_regained"
    assert host.holder == ""


def test_lock_that_was_taken_over_is_not_regained(host: Host) -> None:
    host.run("own", "step l lock 30 none none")
    host.run("other", "step t take_over own ended", "step l lock 30 none none")
    assert host.run("own", "step r regain 0")[-1] == "end r failed not_regained"
    assert host.holder == "other"
    host.run("other", "step u unlock")
    assert host.run("own", "step r regain 0")[-1] == "end r failed not_regained"


def test_lock_of_who_was_dispossessed_is_not_regained_while_the_next_gives_it_back(
    host: Host,
) -> None:
    """The next one's script is between its renames: nobody has the lock."""
    host.run("own", "step l lock 30 none none")
    host.run("other", "step t take_over own ended", "step l lock 30 none none", "vacate other")
    assert host.holder == ""
    assert host.run("own", "step r regain 0")[-1] == "end r failed not_regained"


def test_lock_that_is_being_given_back_is_regained(host: Host) -> None:
    """A script is between the two renames that give it back."""
    host.run("own", "step l lock 30 none none")
    slow = 'clear_away() { case $1 in */spare) sleep 0.5 ;; esac; command rm -rf -- "$@"; }'
    command = ["sh", host.file("own", slow, "step u unlock")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL):
        while host.holder:
            time.sleep(0.01)
        assert host.run("own", "step r regain 0", "step p prune 1")[-1] == "end p ok"
    assert host.holder == "own"


def test_watchdog_that_went_back_is_told_to_who_would_undo(host: Host) -> None:
    host.run("own", "step l lock 30 none none")
    (host.dir / "run/watch.own").touch()
    host.run("own", "go_back() { :; }", "watch 0 5")
    assert host.holder == ""
    assert host.run("own", "step r regain 0")[-1] == "end r failed not_confirmed_in_time"
    host.run("other", "step l lock 30 none none")
    assert not list((host.dir / "run").glob("watch.*"))


def test_lock_stays_with_a_watchdog_that_goes_back(host: Host) -> None:
    host.run("own", "step l lock 30 none none")
    (host.dir / "run/watch.own.undoing").touch()
    assert host.run("own", "step u unlock")[-1] == "end u failed not_confirmed_in_time"
    assert host.holder == "own"
    assert host.run("own", "watching=yes", "step u unlock")[-1] == "end u ok"


def test_who_finds_another_release_gives_its_lock_back_and_has_nothing_to_undo(host: Host) -> None:
    assert host.run("own", "step l lock 30 other none")[-1] == "end l failed changed_meanwhile"
    assert host.holder == ""
    assert host.run("own", "step r regain 0")[-1] == "end r failed not_regained"
    assert host.run("own", "step l lock 30 any any")[-1] == "end l ok"
    assert host.run("own", "step l lock 30 other none")[-1] == "end l failed changed_meanwhile"
    assert host.holder == "own"  # it is that of the gate


def test_rollback_point_that_was_pruned_is_none(host: Host) -> None:
    """So an undo that comes after the pruning is whole."""
    (host.dir / "releases/a/.unifyweaver").mkdir(parents=True)
    said = host.run(
        "own", "step l lock 30 none none", "step i intend a gone none b running",
        "step c link current a", "step b link .backup gone", "step s settle", "step u unlock",
    )  # fmt: skip
    assert said[-1] == "end u ok"
    assert not (host.dir / ".backup").is_symlink()
    assert not (host.dir / "run/intent").read_text().strip()


def commands() -> str:
    """Those of all processes that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_text(errors="replace"))
    return "\n".join(found)


def test_watchdog_that_has_begun_is_not_ended_by_its_own_operation(host: Host) -> None:
    host.held("slow", expiry=now() + 2000)
    for name, said in (("other", "end p ok"), ("slow", "end p failed not_confirmed_in_time")):
        (host.dir / f"run/watch.{name}.undoing").touch()
        assert host.run("slow", "step p prune 1")[-1] == said


def test_watchdog_does_nothing_once_it_is_disarmed(host: Host) -> None:
    host.held("slow", expiry=now() + 2000)
    armed = host.dir / "run/watch.slow"
    armed.touch()
    confirmed = host.file("confirmed", "token=slow", "step d disarm 1")
    crossing = f"mv() {{ unset -f mv; sh '{confirmed}' >'{host.dir}/said'; command mv \"$@\"; }}"
    went_back = f"go_back() {{ : >'{host.dir}/went_back'; }}"
    host.run("slow", went_back, crossing, "watch 0 5")
    assert "end d ok" in (host.dir / "said").read_text()
    assert not (host.dir / "went_back").exists()
    armed.touch()
    host.run("slow", went_back, "watch 0 5")
    assert (host.dir / "went_back").exists()
    assert not armed.exists()
    assert host.run("slow", "step d disarm 1")[-1] == "end d failed not_confirmed_in_time"
