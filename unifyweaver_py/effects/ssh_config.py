"""Where a connection goes and as whom: the target's options over the user's `ssh_config`.

Read as Paramiko reads it, with `Include` added. Honoured: Host, Match (all, host, originalhost,
user, localuser, final), HostName, Port, User, IdentityFile, ConnectTimeout, ProxyJump,
ProxyCommand, AddressFamily, UserKnownHostsFile. `StrictHostKeyChecking` is superseded by the option
`host_key`. A keyword of `REFUSED` changes whom we trust or where we go and is not understood: such
a connection is refused.
"""

from __future__ import annotations

import getpass
import glob
import io
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from paramiko.config import SSHConfig
from paramiko.ssh_exception import SSHException

from unifyweaver_py.effects.base import EffectError, is_true, unreachable

DEFAULT_USER = "deploy"
DEFAULT_CONNECT_TIMEOUT = 10.0
SYSTEM_CONFIG = "/etc/ssh/ssh_config"
USER_CONFIG = "~/.ssh/config"
SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
MAX_HOPS = 8
MAX_INCLUDES = 16

# Keyword -> the values that change nothing.
REFUSED: dict[str, tuple[str, ...]] = {
    "BindAddress": (),
    "BindInterface": (),
    "CanonicalizeHostname": ("no",),
    "GlobalKnownHostsFile": (" ".join(SYSTEM_KNOWN_HOSTS), SYSTEM_KNOWN_HOSTS[0]),
    "HostKeyAlias": (),
    "KnownHostsCommand": ("none",),
    "ProxyUseFdpass": ("no",),
    "RevokedHostKeys": ("none",),
}
MATCH_CRITERIA = ("all", "canonical", "final", "host", "originalhost", "user", "localuser")


@dataclass(frozen=True)
class Login:
    """Everything that decides where a connection goes, as whom, and whom it trusts. `hops` come
    first.
    """

    host: str
    port: int
    user: str
    key_file: str | None
    identity_files: tuple[str, ...]
    agent: bool
    known_hosts: tuple[str, ...]
    accept_new: bool
    connect_timeout: float
    family: int
    proxy_command: str | None
    hops: tuple[Login, ...]


def refused(text: str) -> EffectError:
    """The refusal of a connection that the configuration asks for."""
    return EffectError(unreachable(text))


def resolve(host: str, options: Mapping[str, Any]) -> Login:
    """The login for a target: options first, then `ssh_config`, then the defaults.

    Options are user, ssh_port, key_file, agent, known_hosts, host_key, connect_timeout (seconds).
    Raises `EffectError` unreachable(Why) for what is not a host name and for a refused keyword.
    """
    return _resolve(host, options, MAX_HOPS)


def _resolve(host: str, options: Mapping[str, Any], hops_left: int) -> Login:
    name = _host_name(host)
    found = _lookup(name)
    user = _user_name(options.get("user") or found.get("user") or DEFAULT_USER)
    port = int(options.get("ssh_port") or found.get("port") or 22)
    key_file = options.get("key_file")
    address = _host_name(found.get("hostname", name))
    tokens = {"%": "%", "h": address, "n": name, "p": str(port), "r": user}
    return Login(
        host=address,
        port=port,
        user=user,
        key_file=os.path.expanduser(key_file) if key_file else None,
        identity_files=_identity_files(found),
        agent=is_true(options.get("agent", True)),
        known_hosts=_known_hosts(options, found, tokens),
        accept_new=options.get("host_key") == "accept_new",
        connect_timeout=_connect_timeout(options, found),
        family=_family(found),
        proxy_command=_proxy_command(found, tokens),
        hops=_hops(found, options, hops_left),
    )


def _host_name(host: str) -> str:
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    # A host may end up in the words of a ProxyCommand.
    if not re.fullmatch(r"[\w:][\w.:%-]*", name):
        raise refused(f"not a host name: {host!r}")
    return name


def _user_name(user: object) -> str:
    if not re.fullmatch(r"[\w][\w.@+\\-]*\$?", str(user)):
        raise refused(f"not a user name: {user!r}")
    return str(user)


def _connect_timeout(options: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    chosen = options.get("connect_timeout") or found.get("connecttimeout")
    return float(chosen or DEFAULT_CONNECT_TIMEOUT)


def _family(found: Mapping[str, Any]) -> int:
    families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
    return families.get(str(found.get("addressfamily", "any")).lower(), socket.AF_UNSPEC)


def _identity_files(found: Mapping[str, Any]) -> tuple[str, ...]:
    configured = found.get("identityfile") or DEFAULT_KEYS
    paths = (os.path.expanduser(path) for path in configured)
    return tuple(path for path in paths if os.path.isfile(path))


def _proxy_command(found: Mapping[str, Any], tokens: Mapping[str, str]) -> str | None:
    command = found.get("proxycommand")
    if not command or _jumps(found):
        return None
    return _expanded("ProxyCommand", str(command), tokens)


def _jumps(found: Mapping[str, Any]) -> list[str]:
    jumps = str(found.get("proxyjump") or "none")
    return [] if jumps.lower() == "none" else [jump.strip() for jump in jumps.split(",")]


def _hops(found: Mapping[str, Any], options: Mapping[str, Any], left: int) -> tuple[Login, ...]:
    """The hosts to go through, nearest first; the first may itself be behind others."""
    jumps = _jumps(found)
    if len(jumps) > left:
        raise refused("ssh_config: ProxyJump leads through too many hosts")
    hops: list[Login] = []
    for index, jump in enumerate(jumps):
        login = _hop(jump, options, left - len(jumps))
        hops += login.hops if index == 0 else ()
        hops.append(login)
    return tuple(hops)


def _hop(jump: str, options: Mapping[str, Any], left: int) -> Login:
    shape = re.fullmatch(r"(?:ssh://)?(?:([^@]+)@)?(\[[^\]]+\]|[^:]+)(?::(\d+))?/?", jump)
    if shape is None:
        raise refused(f"ssh_config: not a host to jump through: {jump!r}")
    user, host, port = shape.groups()
    own = {name: options[name] for name in ("agent", "known_hosts", "host_key") if name in options}
    own |= {"connect_timeout": options.get("connect_timeout")}
    own |= {"user": user or _lookup(_host_name(host)).get("user") or getpass.getuser()}
    own |= {"ssh_port": int(port)} if port else {}
    own |= {"key_file": options["key_file"]} if options.get("key_file") else {}
    return _resolve(host, own, left)


def _known_hosts(
    options: Mapping[str, Any], found: Mapping[str, Any], tokens: Mapping[str, str]
) -> tuple[str, ...]:
    if options.get("known_hosts"):
        return (os.path.expanduser(str(options["known_hosts"])),)
    configured = found.get("userknownhostsfile")
    if configured is None:
        chosen: tuple[str, ...] = USER_KNOWN_HOSTS
    elif configured.lower() == "none":
        return (os.devnull, *SYSTEM_KNOWN_HOSTS)
    else:
        more = {**tokens, "d": os.path.expanduser("~"), "u": getpass.getuser()}
        paths = (_expanded("UserKnownHostsFile", path, more) for path in _words(configured))
        chosen = tuple(os.path.expandvars(path) for path in paths)
    return (*(os.path.expanduser(path) for path in chosen), *SYSTEM_KNOWN_HOSTS)


def _expanded(keyword: str, text: str, tokens: Mapping[str, str]) -> str:
    def token(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise refused(f"ssh_config: {keyword} with {found[0]} is not supported")
        return tokens[found[1]]

    return re.sub(r"%(.?)", token, text)


def _words(text: str) -> list[str]:
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', text)]


# ---- reading the files


_reading = threading.Lock()


def _lookup(name: str) -> dict[str, Any]:
    """What the user's and the system's `ssh_config` say about a host, keywords in lower case."""
    paths = (os.path.expanduser(USER_CONFIG), SYSTEM_CONFIG)
    with _reading:
        try:
            return _looked_up(name, paths, _stamps(paths))
        except (SSHException, ValueError) as error:
            raise refused(f"ssh_config: {error}") from error


Stamps = tuple[tuple[str, int, int], ...]


def _stamps(paths: tuple[str, ...]) -> Stamps:
    return tuple(
        (path, status.st_mtime_ns, status.st_size)
        for path in _with_included(paths)
        if (status := _status(path)) is not None
    )


def _with_included(paths: tuple[str, ...]) -> Iterator[str]:
    for path in paths:
        yield path
        status = _status(path)
        if status is None:
            continue
        for pattern in _include_patterns(path, status.st_mtime_ns, status.st_size):
            yield os.path.dirname(pattern)
            yield from sorted(glob.glob(pattern))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _include_patterns(path: str, _mtime: int, _size: int) -> tuple[str, ...]:
    return tuple(
        pattern
        for line in _text(path).splitlines()
        if (include := _include(line)) is not None
        for pattern in _patterns(include, path)
    )


class _Config(SSHConfig):  # type: ignore[misc]
    """Paramiko's reader, but it refuses what it would ignore, guess or run.

    The tokens of ProxyCommand are left to us: it knows neither port nor user of the options.
    By itself it takes an unknown Match criterion as fulfilled, and runs `Match exec` without a time
    limit.
    """

    TOKENS_BY_CONFIG_KEY = {  # noqa: RUF012 - Paramiko's
        **SSHConfig.TOKENS_BY_CONFIG_KEY,
        "proxycommand": [],
    }

    def _lookup(self, *arguments: Any, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = super()._lookup(*arguments, **more)
        for keyword, harmless in REFUSED.items():
            value = found.get(keyword.lower())
            if value is not None and str(value).lower() not in harmless:
                raise refused(f"ssh_config: {keyword} is not supported")
        return found

    def _does_match(self, match_list: list[dict[str, Any]], *rest: Any, **more: Any) -> Any:
        for index, criterion in enumerate(match_list):
            if criterion["type"].lower() in MATCH_CRITERIA:
                continue
            before = match_list[:index]
            if not before or super()._does_match(before, *rest, **more):
                raise refused(f"ssh_config: Match {criterion['type']} is not supported")
            return []
        return super()._does_match(match_list, *rest, **more)


@lru_cache(maxsize=4096)
def _looked_up(name: str, paths: tuple[str, ...], stamps: Stamps) -> dict[str, Any]:
    return dict(_config(paths, stamps).lookup(name))


@lru_cache(maxsize=4)
def _config(paths: tuple[str, ...], _stamps: Stamps) -> SSHConfig:
    config = _Config()
    for path in paths:
        if os.path.isfile(path):
            config.parse(io.StringIO("\n".join(_spliced(path, 0))))
    return config


def _spliced(path: str, depth: int) -> Iterator[str]:
    """The file's lines with those of the included files in their place."""
    if depth > MAX_INCLUDES:
        raise refused(f"ssh_config: Include goes too deep: {path}")
    section = "Host *"
    for line in _text(path).splitlines():
        include = _include(line)
        if include is None:
            section = line if _is_section(line) else section
            yield line
            continue
        for pattern in _patterns(include, path):
            for included in sorted(glob.glob(pattern)):
                lines = list(_spliced(included, depth + 1))
                if any(map(_is_section, lines)) and section != "Host *":
                    raise refused(f"ssh_config: Include of sections within a section: {included}")
                yield from lines
        yield section


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise refused(f"ssh_config: {error}") from error


def _include(line: str) -> str | None:
    found = re.match(r"\s*include(?:\s*=\s*|\s+)(.+)", line, re.IGNORECASE)
    return found[1].strip() if found else None


def _is_section(line: str) -> bool:
    return bool(re.match(r"\s*(host|match)[\s=]", line, re.IGNORECASE))


def _patterns(include: str, path: str) -> list[str]:
    base = os.path.dirname(SYSTEM_CONFIG if path == SYSTEM_CONFIG else USER_CONFIG)
    return [
        os.path.join(os.path.expanduser(base), os.path.expanduser(word)) for word in _words(include)
    ]
