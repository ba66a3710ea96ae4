"""The reference of all options, as Markdown, made from the table that checks them.

`python -m unifyweaver_py.reference` prints it; `python -m unifyweaver_py.reference README.md` puts it between the two
marks of that file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from unifyweaver_py import query
from unifyweaver_py._results import text
from unifyweaver_py._terms import Term, Value

BEGIN = "<!-- options: made by `python -m unifyweaver_py.reference README.md` -->"
END = "<!-- end of the options -->"

TITLES = {
    "service": "Of a service, in `declare_service`; a host may have its own, but for `host` and `source_dir`",
    "method": "Of the method `ssh` or `local`, in `declare_deploy_method`; a host may have its own, but for `host`",
    "place": "Of a host alone",
    "rollout": "Of a rollout, in `declare_rollout`",
    "call": "Of every operation",
    "force": "Of deployments",
    "confirm": "Of deployments, and of a rollout",
    "to": "Of `rollback_service`",
    "lock": "Of `lock_service`",
    "graceful_stop": "Of `graceful_stop`",
    "drain": "Of `drain_connections`",
    "probe": "Of `run_health_check` and `wait_for_healthy`",
    "attempts": "Of `run_health_check`",
    "deadline": "Of `wait_for_healthy`",
    "load_balancer": "Of `haproxy` in `declare_load_balancer`",
    "history": "Of `history`",
    "health_script": "Of `generate_health_check_script`, beside those of service and method",
}


def reference() -> str:
    """Return all options, a Markdown table a group."""
    return "\n\n".join("\n".join(_table(group, title)) for group, title in TITLES.items())


def _table(group: str, title: str) -> Iterator[str]:
    yield f"{title}:\n"
    yield "| option (default) | values | meaning |"
    yield "|---|---|---|"
    goal = (
        "deployment_options:option_group(Group, Name, Type, Default, Doc), "
        "deployment_messages:type_text(Type, Values)"
    )
    for row in query(goal, Group=group):
        cells = (f"`{_option(row['Name'], row['Default'])}`", row["Values"], row["Doc"])
        yield f"| {' | '.join(_cell(str(cell)) for cell in cells)} |"


def _option(name: Value, default: Value) -> str:
    match default:
        case Term("default", (value,)):
            return f"{name}({text(value)})"
    return str(name)


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


def with_reference(page: str) -> str:
    """Return a page with the reference between its two marks.

    Raises:
        ValueError: the page has not both marks, in their order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def main() -> None:
    """Print the reference, or put it into the file named."""
    if len(sys.argv) == 1:
        print(reference())
        return
    page = Path(sys.argv[1])
    page.write_text(with_reference(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
