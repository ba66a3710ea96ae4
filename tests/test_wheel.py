"""The built wheel, installed into a clean environment, deploys from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DEPLOY = """
import sys
from pathlib import Path
import unifyweaver_py as uw

here = Path.cwd()
assert "site-packages" in uw.__file__, uw.__file__
uw.declare_service("wheel", port=int(sys.argv[1]), entry_point="server.py")
uw.declare_deploy_method("wheel", "local", remote_dir=str(here / "services"))
uw.declare_service_sources("wheel", ["server.py", "VERSION", "BEHAVIOUR"])
try:
    print(uw.deploy_with_rollback("wheel"))
    print(uw.service_status("wheel", "localhost"))
finally:
    print(uw.force_stop_service("wheel", 5))
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env={**env, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.strip() == ""
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [built] = out.glob("*.whl")
    return built


def test_wheel_holds_the_rules_once_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    rules = [name for name in names if name.endswith((".pl", ".sh"))]
    assert "unifyweaver_py/prolog/deployment_glue.pl" in rules
    assert "unifyweaver_py/prolog/deployment/target.sh" in rules
    assert len({Path(name).name for name in rules}) == len(rules)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"unifyweaver_py"}


def test_installed_wheel_deploys_from_any_folder(
    wheel: Path, tmp_path: Path, free_port: int
) -> None:
    venv = tmp_path / "venv"
    # The parent environment's packages are visible: what is tested is our wheel, not their download.
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    site = next((venv / "lib").glob("python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    dependencies = Path(pytest.__file__).parents[1]
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "VERSION").write_text("1")
    (folder / "BEHAVIOUR").write_text("healthy")
    (folder / "server.py").write_bytes((ROOT / "tests/sites/server.py").read_bytes())
    ledger = str(tmp_path / "ledger.sqlite3")
    out = run(
        venv / "bin/python", "-c", DEPLOY, str(free_port), cwd=folder, UNIFYWEAVER_LEDGER=ledger
    )
    assert out.split() == ["deployed", "running", "stopped"]
