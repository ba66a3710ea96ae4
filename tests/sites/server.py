"""The service that the tests deploy.  BEHAVIOUR beside it, words separated by spaces, says how it behaves:

healthy, broken (/health answers 500), redirect (/health answers 302), crash (ends at once with 3), deaf (never
listens), mute (/health never answers), forks (a child process owns the port), stubborn (ignores TERM), noisy
(writes 1 MB on standard error first), slow (listens after one second), fragile (healthy for two answers, then broken).
"""

import argparse
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = (HERE / "VERSION").read_text()
BEHAVIOUR = (HERE / "BEHAVIOUR").read_text().split()
answered = 0
draining = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/hold":
            self.hold(float(query))
        elif path == "/late":
            time.sleep(float(query))
            self.say(200, VERSION)
        elif path == "/health":
            self.health()
        elif path == "/env":
            self.say(200, os.environ.get(query, ""))
        else:
            self.say(200, VERSION)

    def do_POST(self) -> None:
        if self.path == "/drain":
            draining.set()
            self.say(200, "draining")
        else:
            self.say(404, "")

    def health(self) -> None:
        global answered
        answered += 1
        if "mute" in BEHAVIOUR:
            time.sleep(600)
        elif "redirect" in BEHAVIOUR:
            self.say(302, "", Location="/login")
        elif "broken" in BEHAVIOUR or ("fragile" in BEHAVIOUR and answered > 2):
            print("health: broken as told", file=sys.stderr, flush=True)
            self.say(500, "broken")
        else:
            self.say(200, "healthy")

    def hold(self, seconds: float) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wfile.write(b".")
            self.wfile.flush()
            time.sleep(0.05)
        self.close_connection = True

    def say(self, status: int, text: str, **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--address", default="127.0.0.1")
    arguments = parser.parse_args()
    print(f"version {VERSION} starts", file=sys.stderr, flush=True)
    if "noisy" in BEHAVIOUR:
        sys.stderr.write("noise " * 200_000 + "\n")
    if "crash" in BEHAVIOUR:
        print("crash: as told", file=sys.stderr, flush=True)
        sys.exit(3)
    if "stubborn" in BEHAVIOUR:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "deaf" in BEHAVIOUR:
        time.sleep(600)
    if "slow" in BEHAVIOUR:
        time.sleep(1)
    signal.signal(signal.SIGUSR1, lambda *_: draining.set())
    if "forks" in BEHAVIOUR and os.fork():
        os.wait()
        return
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer((arguments.address, arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
