"""Where the Prolog sources are: inside the installed package, or beside the checkout."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

_ENGINE = Path("deployment", "engine.pl")


@lru_cache(maxsize=1)
def prolog_dir() -> Path:
    """Return the absolute folder that holds ``deployment_glue.pl`` and ``deployment/``.

    Raises:
        FileNotFoundError: the package is incomplete: neither place has the sources.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "prolog", package.parent / "prolog"):
        if (folder / _ENGINE).is_file():
            return folder
    raise FileNotFoundError(f"the Prolog sources of unifyweaver_py are missing from {package}")
