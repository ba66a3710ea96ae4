"""Importing is cheap, ending is silent, and a missing Prolog is explained: in fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python(
    code: str, *, timeout: float = 30, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def silent(code: str) -> None:
    result = python("from unifyweaver_py._engine import engine\ne = engine()\n" + code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_import_starts_nothing() -> None:
    result = python(
        "import sys, unifyweaver_py\n"
        "print(sorted({'pyswip', 'fabric', 'paramiko', 'requests'} & set(sys.modules)))"
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    "code",
    [
        "e.once('true')",
        "q = e.query('repeat'); next(q)",
        "q = e.query('repeat'); next(q); del q",
        "import sys; sys.exit(0)",
        "e.once('thread_create((repeat, fail), _, [detached(true)])')",
        "import threading, time\n"
        "threading.Thread(target=lambda: e.once('repeat, fail'), daemon=True).start()\n"
        "time.sleep(0.1)",
        "import threading, time\n"
        "e.register('user', 'nap', 1, lambda: time.sleep(5) or 'done')\n"
        "e.once('thread_create(nap(_), _, [detached(true)])', module='user')\n"
        "threading.Thread(target=lambda: e.once('nap(_)', module='user'), daemon=True).start()\n"
        "time.sleep(0.1)",
        "e.register('user', 'tick', 1, lambda: 'done')\n"
        "e.once('forall(between(1, 4, _), "
        "thread_create((repeat, tick(_), fail), _, [detached(true)]))', module='user')",
        "import threading\nt = threading.Thread(target=lambda: list(e.query('member(X, [1, 2])')))\n"
        "t.start(); t.join()",
    ],
)
def test_the_end_is_silent(code: str) -> None:
    silent(code)


def test_at_halt_runs_and_output_is_flushed() -> None:
    result = python(
        "from unifyweaver_py._engine import engine\n"
        "engine().once(\"at_halt(write(bye)), write('hello ')\")"
    )
    assert (result.stdout, result.stderr) == ("hello bye", "")


def test_first_use_on_another_thread() -> None:
    result = python(
        "import threading\n"
        "from unifyweaver_py._engine import engine\n"
        "t = threading.Thread(target=lambda: print(engine().once('X = 1')))\n"
        "t.start(); t.join()\n"
        "print(engine().once('X = 2'))\n"
        "import pyswip; print(list(pyswip.Prolog.query('X = 3')))"
    )
    assert (result.stdout, result.stderr) == ("{'X': 1}\n{'X': 2}\n[{'X': 3}]\n", "")


@pytest.mark.parametrize("order", ["ours first", "pyswip first"])
def test_pyswip_works_beside_it(order: str) -> None:
    imports = ["from unifyweaver_py._engine import engine\ne = engine()", "import pyswip"]
    if order == "pyswip first":
        imports.reverse()
    result = python(
        "\n".join(imports) + "\n"
        "pyswip.Prolog.assertz('both(1)')\n"
        "print(list(pyswip.Prolog.query('both(X)')), pyswip.core.PL_VERSION > 0)\n"
        "print(engine().once('both(X)', module='user'))"
    )
    assert (result.stdout, result.stderr) == ("[{'X': 1}] True\n{'X': 1}\n", "")


def test_start_ignores_the_users_start_up_file(tmp_path: Path) -> None:
    config = tmp_path / "swi-prolog"
    config.mkdir()
    (config / "init.pl").write_text(':- format("started~n").\n')
    result = python(
        "from unifyweaver_py._engine import engine\nengine()", XDG_CONFIG_HOME=str(tmp_path)
    )
    assert result.stdout == ""


def test_a_missing_prolog_names_the_command_that_installs_it() -> None:
    result = python(
        "import ctypes.util, os\n"
        "os.environ['PATH'] = '/nowhere'\n"
        "ctypes.util.find_library = lambda name: None\n"
        "exists = os.path.exists\n"
        "os.path.exists = lambda path: 'swipl' not in str(path) and exists(path)\n"
        "from unifyweaver_py._engine import engine\n"
        "from unifyweaver_py._errors import PrologNotFound\n"
        "try:\n    engine()\nexcept PrologNotFound as error:\n    print(error)"
    )
    assert "SWI-Prolog 9.0 or newer is needed: " in result.stdout, result.stderr
    assert "install swi" in result.stdout


def test_an_old_prolog_is_refused() -> None:
    result = python(
        "from unifyweaver_py import _engine\n"
        "_engine._OLDEST = 990000\n"
        "from unifyweaver_py._errors import PrologNotFound\n"
        "try:\n    _engine.engine()\nexcept PrologNotFound as error:\n    print(error)"
    )
    assert "is too old" in result.stdout, result.stderr


def test_a_fork_refuses_clearly_and_ends_silently() -> None:
    result = python(
        "import os\n"
        "from unifyweaver_py._engine import engine\n"
        "from unifyweaver_py._errors import EngineUnavailable\n"
        "e = engine()\n"
        "if os.fork() == 0:\n"
        "    try:\n        e.once('true')\n"
        "    except EngineUnavailable as error:\n        print(error)\n"
        "else:\n    os.wait(); print(e.once('X = 1'))"
    )
    assert result.stdout.splitlines() == [
        "Prolog does not survive a fork; start a new process (spawn) instead",
        "{'X': 1}",
    ]
    assert result.stderr == ""
