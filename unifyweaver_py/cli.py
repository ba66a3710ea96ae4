"""The command `unifyweaver`."""

from __future__ import annotations

import sys

import click


@click.group()
@click.version_option(package_name="unifyweaver_py")
def main() -> None:
    """Deploy services by rules."""


@main.command()
def demo() -> None:
    """Deploy to three SSH hosts inside this process, break a release, and see it rolled back."""
    from unifyweaver_py.demo import tour

    sys.exit(tour.main())
