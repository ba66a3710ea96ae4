"""A small HTTP service that says which version of it is running.

`GET /` answers the text of the file VERSION as it was at the start; `GET /health` answers 200, or
500 while a file BROKEN is beside this one, or 503 once SIGUSR1 has announced that the process
will be stopped.
"""

import argparse
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Resolved once: `current` may point to another release while this process still runs.
RELEASE = Path(__file__).resolve().parent
VERSION = (RELEASE / "VERSION").read_text(encoding="utf-8").strip()
draining = threading.Event()


def health() -> tuple[int, str]:
    """The status and the text that `GET /health` answers now."""
    if draining.is_set():
        return 503, "draining"
    if (RELEASE / "BROKEN").exists():
        return 500, "broken"
    return 200, "healthy"


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests, one connection each."""

    def do_GET(self) -> None:
        """Answer one request."""
        answers = {"/": lambda: (200, VERSION), "/health": health}
        status, text = answers.get(self.path, lambda: (404, "not found"))()
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="an HTTP service that says its version")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--address", default="127.0.0.1", help="where to listen (default: %(default)s)"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGUSR1, lambda _signal, _frame: draining.set())
    with ThreadingHTTPServer((options.address, options.port), Handler) as server:
        print(f"version {VERSION} listens on {options.address}:{options.port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
