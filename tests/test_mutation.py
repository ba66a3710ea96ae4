"""No exported predicate can be replaced by nothing, or by one that fails, without a test noticing."""

from __future__ import annotations

import pytest

from tests import mutation


def test_every_exported_predicate_has_tests_of_its_own() -> None:
    assert set(mutation.SUBJECTS) == set(mutation.exported())
    for tests in mutation.SUBJECTS.values():
        for test in tests:
            assert (mutation.ROOT / test.partition("::")[0]).exists(), test


def test_mutant_is_noticed_and_no_mutant_is_not() -> None:
    [nothing, failing] = mutation.trials(["requires_encryption"])
    assert nothing.noticed_by == failing.noticed_by == "tests/prolog/security.plt"


@pytest.mark.soak
def test_every_mutant_is_noticed() -> None:
    unnoticed = []
    for done in mutation.trials():
        print(done.mutant.indicator, done.mutant.manner, done.noticed_by, f"{done.seconds:.1f} s")
        if done.noticed_by is None:
            unnoticed.append((done.mutant.indicator, done.mutant.manner))
    assert unnoticed == []
