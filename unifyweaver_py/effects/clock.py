"""Waiting, as an effect: it ends early when the run does."""

from __future__ import annotations

import threading


def sleep(seconds: float, stop: threading.Event) -> str:
    """Wait; `done`, or `cancelled` as soon as `stop` is set."""
    return "cancelled" if stop.wait(max(0.0, seconds)) else "done"
