"""What a terminal is shown: the texts of others, as a service's log, give it no orders."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.text import Text

ORDERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def shown(text: str) -> str:
    r"""Return the text with its control characters, but for tabs and line ends, in words: ESC is ``\x1b``."""
    return ORDERS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class Terminal(Console):
    """A console that shows control characters and does not obey them."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text as rich shows it."""
        return super().render_str(shown(text), **options)
