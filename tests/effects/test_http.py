"""HTTP probes, against real servers on loopback; also through a real SSH server."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sshd import Sshd, free_port

from unifyweaver_py._terms import PrologString, Term
from unifyweaver_py.effects import LiveEffects, Run

DIRECT = Term("via", ("direct",))
VIA_SSH = Term("via", ("ssh",))


class Site(BaseHTTPRequestHandler):
    """Answers by path; remembers the requests."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))  # type: ignore[attr-defined]
        if self.path == "/moved":
            self.answer(302, b"", Location="/ok")
        elif self.path == "/broken":
            self.answer(500, b"broken \xff")
        elif self.path == "/long":
            self.answer(200, b"x" * 1_000_000)
        elif self.path == "/twice":
            self.answer(200, b"ok", X_One="1", x_two="2")
        elif self.path == "/slow":
            self.server.release.wait(20)  # type: ignore[attr-defined]
        elif self.path == "/drip":
            self.drip()
        elif self.path == "/hangup":
            self.close_connection = True
        else:
            self.answer(200, b"ok")

    def do_POST(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self) -> None:
        for _ in range(200):
            try:
                self.wfile.write(b"H")
                self.wfile.flush()
            except OSError:
                return
            if self.server.release.wait(0.1):  # type: ignore[attr-defined]
                return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Site)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.release = threading.Event()
        self.connections = 0

    def get_request(self) -> tuple[object, object]:
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_: object) -> None:
        """A probe may go away before it is answered."""


@pytest.fixture
def site() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def secure_site(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A server with a certificate of its own for `localhost`."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*words, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    server = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, certificate
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["direct", "ssh"])
def probe(
    request: pytest.FixtureRequest, live: LiveEffects, forward: Term, sshd: Sshd
) -> Callable[..., Term]:
    """Probe a URL, from here or through SSH."""

    def ask(url: str, *options: Term, method: str = "GET") -> Term:
        via = Term("via", (request.param,))
        return live.probe(forward, sshd.target(), Term("request", (method, url, [via, *options])))

    return ask


def url(site: Server, path: str, scheme: str = "http", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{site.server_port}{path}"


def failed(reason: object) -> Term:
    return Term("failed", (reason,))


def test_an_answer_has_status_headers_and_body(probe: Callable[..., Term], site: Server) -> None:
    outcome = probe(url(site, "/health"))
    assert outcome.args[0] == 200
    assert Term("-", ("content-length", "2")) in outcome.args[1]
    assert outcome.args[2] == "ok"
    assert isinstance(outcome.args[2], PrologString)


def test_a_failure_of_the_service_is_an_answer(probe: Callable[..., Term], site: Server) -> None:
    outcome = probe(url(site, "/broken"))
    assert (outcome.args[0], outcome.args[2]) == (500, "broken \ufffd")


def test_a_redirect_is_not_followed(probe: Callable[..., Term], site: Server) -> None:
    outcome = probe(url(site, "/moved"))
    assert outcome.args[0] == 302
    assert Term("-", ("location", "/ok")) in outcome.args[1]
    assert [path for _, path, _ in site.seen] == ["/moved"]


def test_method_and_headers_are_sent(probe: Callable[..., Term], site: Server) -> None:
    header = Term("header", ("Host", "api.example"))
    probe(url(site, "/drain"), header, Term("header", ("X-Token", "t")), method="post")
    ((method, path, headers),) = site.seen
    assert (method, path) == ("POST", "/drain")
    sent = {name.lower(): value for name, value in headers.items()}
    assert sent.items() >= {"host": "api.example", "x-token": "t"}.items()


def test_only_the_beginning_of_a_body_is_read(probe: Callable[..., Term], site: Server) -> None:
    assert len(probe(url(site, "/long")).args[2]) == 64 << 10


def test_each_probe_is_a_connection(probe: Callable[..., Term], site: Server) -> None:
    for _ in range(3):
        assert probe(url(site, "/health")).name == "answer"
    assert site.connections == 3


def test_a_refused_connection(probe: Callable[..., Term]) -> None:
    assert probe(f"http://127.0.0.1:{free_port()}/") == failed("connection_refused")


@pytest.mark.parametrize("path", ["/slow", "/drip"])
@pytest.mark.alone
def test_the_time_limit_is_total(probe: Callable[..., Term], site: Server, path: str) -> None:
    begun = time.monotonic()
    assert probe(url(site, path), Term("timeout", (0.6,))) == failed("timeout")
    assert time.monotonic() - begun < 1.2


@pytest.mark.alone
def test_a_probe_can_be_cancelled(probe: Callable[..., Term], run: Run, site: Server) -> None:
    probe(url(site, "/health"))
    threading.Timer(0.3, run.cancel.set).start()
    begun = time.monotonic()
    assert probe(url(site, "/slow"), Term("timeout", (20,))) == failed("cancelled")
    assert time.monotonic() - begun < 0.8


def test_a_connection_closed_without_an_answer(probe: Callable[..., Term], site: Server) -> None:
    outcome = probe(url(site, "/hangup"))
    assert outcome.name == "failed"
    assert outcome.args[0].name == "unreachable"


def test_a_certificate_is_verified(
    probe: Callable[..., Term], secure_site: tuple[Server, Path]
) -> None:
    site, certificate = secure_site
    trusted = Term("ca_file", (str(certificate),))
    assert probe(url(site, "/health", "https", "localhost"), trusted).args[0] == 200
    unknown = probe(url(site, "/health", "https", "localhost"))
    assert "certificate" in unknown.args[0].args[0]
    wrong_name = probe(url(site, "/health", "https", "127.0.0.1"), trusted)
    assert "127.0.0.1" in wrong_name.args[0].args[0]


def test_plain_text_behind_https_is_told(probe: Callable[..., Term], site: Server) -> None:
    outcome = probe(url(site, "/health", "https"))
    assert outcome.args[0].name == "unreachable"
    assert "TLS" in outcome.args[0].args[0]


@pytest.mark.parametrize("bad", ["ftp://127.0.0.1/", "http://", "nonsense"])
def test_what_is_not_a_url_is_told(probe: Callable[..., Term], bad: str) -> None:
    assert probe(bad).args[0].name == "unreachable"


def test_a_header_cannot_smuggle_another(probe: Callable[..., Term], site: Server) -> None:
    outcome = probe(url(site, "/health"), Term("header", ("X-A", "1\r\nX-B: 2")))
    assert outcome.name == "failed"
    assert site.seen == []


def test_proxies_of_the_environment_are_ignored(
    probe: Callable[..., Term], site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert probe(url(site, "/health")).name == "answer"


def test_a_forwarded_probe_and_an_exec_share_the_connection(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd, site: Server
) -> None:
    assert live.shell(forward, sshd.target(), "true", "none", 10).name == "done"
    request = Term("request", ("GET", url(site, "/health"), [VIA_SSH]))
    assert live.probe(forward, sshd.target(), request).name == "answer"
    assert run.traffic["127.0.0.1"].connections == 1


def test_a_forwarded_probe_to_a_host_that_is_down(
    live: LiveEffects, forward: Term, sshd: Sshd, site: Server
) -> None:
    request = Term("request", ("GET", url(site, "/health"), [VIA_SSH]))
    target = sshd.target(ssh_port=free_port())
    assert live.probe(forward, target, request) == failed("connection_refused")


def test_a_server_that_does_not_forward_is_told(
    live: LiveEffects, forward: Term, own_sshd: Callable[..., Sshd], site: Server
) -> None:
    server = own_sshd("AllowTcpForwarding=no")
    request = Term("request", ("GET", url(site, "/health"), [VIA_SSH]))
    outcome = live.probe(forward, server.target(), request)
    assert "forward" in outcome.args[0].args[0]


def test_forwarding_leaves_no_thread(
    live: LiveEffects, forward: Term, sshd: Sshd, site: Server
) -> None:
    request = Term("request", ("GET", url(site, "/health"), [VIA_SSH]))
    for _ in range(3):
        assert live.probe(forward, sshd.target(), request).name == "answer"
    end = time.monotonic() + 5
    while time.monotonic() < end and any(
        thread.name == "unifyweaver-forward" for thread in threading.enumerate()
    ):
        time.sleep(0.02)
    names = [thread.name for thread in threading.enumerate()]
    assert "unifyweaver-forward" not in names


def test_a_request_of_another_shape_is_misuse(live: LiveEffects, forward: Term, sshd: Sshd) -> None:
    with pytest.raises(TypeError, match="request"):
        live.probe(forward, sshd.target(), Term("get", ("http://h/",)))
