"""The notebook runs from a clean kernel and shows what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def executed() -> dict[str, Any]:
    """The outputs of the notebook's cells by their source."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=60, resources={"metadata": {"path": NOTEBOOK.parent}}
    ).execute()
    return {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def output(executed: dict[str, Any], source: str, kind: str) -> str:
    [outputs] = [outputs for text, outputs in executed.items() if text.endswith(source)]
    return "".join(out.data[kind] for out in outputs if "data" in out)


def test_facts_are_asked_in_both_directions(executed: dict[str, Any]) -> None:
    hosts = output(executed, 'table(query("service_host(Service, Host, _)"))', "text/html")
    assert "<td>web</td><td>127.0.0.12</td>" in hosts
    assert output(executed, 'Host="127.0.0.12")]', "text/plain") == "['web']"


def test_rules_find_the_insecure_service(executed: dict[str, Any]) -> None:
    found = output(executed, 'validate_security("api")', "text/plain")
    assert found == "[Term(name='remote_requires_encryption', args=('api.example.com',))]"


def test_deployment_is_shown_as_a_table_of_hosts(executed: dict[str, Any]) -> None:
    shown = output(executed, 'result = deploy_with_rollback("web")\nresult', "text/html")
    assert "<code>deployed</code>" in shown
    assert shown.count("<td>deployed</td>") == 3
    again = output(executed, '"web", host="127.0.0.11")]', "text/plain")
    assert "'switch'" in again


def test_broken_release_is_rolled_back_and_says_why(executed: dict[str, Any]) -> None:
    shown = output(executed, "broken", "text/html")
    assert shown.count("<td>rolled_back_after_failure(rolled_back(") == 3
    why = output(executed, 'if event.host == "127.0.0.11")', "text/html")
    assert "health,500)" in why or "/health&#x27;,500)" in why
    assert output(executed, 'str(service_status("web", "127.0.0.11"))', "text/plain") == "'running'"
