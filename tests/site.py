"""A service to deploy in tests: its files, its declarations, and what becomes of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import unifyweaver_py as uw

SERVER = Path(__file__).parent / "sites" / "server.py"


class Site:
    """A service whose release is a folder; `behave` and `release` change what is deployed next."""

    def __init__(self, folder: Path, name: str = "web", *, fresh: bool = True) -> None:
        self.folder = folder
        self.name = name
        if not fresh:
            return
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(SERVER, folder / "server.py")
        self.release("1")

    def release(self, version: str, behaviour: str = "healthy") -> None:
        """The next deployment ships this version, whose server behaves like this (see server.py)."""
        (self.folder / "VERSION").write_text(version)
        (self.folder / "BEHAVIOUR").write_text(behaviour)

    def declare(
        self, hosts: Mapping[str, Mapping[str, Any]], method: str = "ssh", **options: Any
    ) -> None:
        """Declare the service; `options` are the service's or the method's."""
        uw.undeclare_service(self.name)
        method_names = {"user", "ssh_port", "key_file", "known_hosts", "remote_dir", "agent"}
        method_names |= {"host_key", "connect_timeout", "command_timeout", "link_unchanged"}
        of_method = {key: value for key, value in options.items() if key in method_names}
        of_service = {key: value for key, value in options.items() if key not in method_names}
        transport = {"transport": "ssh"} if method == "ssh" else {}
        uw.declare_service(self.name, **{"source_dir": str(self.folder), **transport, **of_service})
        uw.declare_deploy_method(self.name, method, **of_method)
        uw.declare_service_sources(self.name, ["**"])
        uw.declare_service_hosts(self.name, hosts)

    def deploy(self, **options: Any) -> uw.Result:
        return uw.deploy_with_rollback(self.name, **options)
