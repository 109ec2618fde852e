"""The published conformance suite through the gateway: what must pass passes, and what is said to fail does fail."""

from __future__ import annotations

import os
import pickle
import re

import pytest

from conformance.authorization import demands, missing
from conformance.report import DOCUMENT, Runs, document, expected, showing_less
from conformance.run import both
from conformance.suite import REVISIONS
from node_peers import locked

pytestmark = pytest.mark.timeout(300)
SECTIONS = {
    "RFC 8725": [f"2.{number}" for number in range(1, 10)] + [f"3.{number}" for number in range(1, 13)],
    "RFC 9700": ["2.1", "2.1.1", "2.1.2", "2.2.1", "2.2.2", "2.3", "2.4", "2.5", "2.6", "4.10.1", "4.10.2"]
    + [f"4.{number}" for number in range(1, 18) if number != 10],
}
"""What each of the two best practices asks for, by section."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runs, Runs]:
    """Both runs. Where tests are spread over several processes, the first one that comes runs them for all."""
    place = tmp_path_factory.mktemp("conformance")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return both(place)
    kept = tmp_path_factory.getbasetemp().parent / "conformance.pickle"  # that folder belongs to this run of pytest
    with locked("conformance"):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(both(place)))
        told: tuple[Runs, Runs] = pickle.loads(kept.read_bytes())
    return told


@pytest.mark.parametrize("revision", REVISIONS)
def test_exactly_the_expected_scenarios_fail_through_the_gateway(revision: str, runs: tuple[Runs, Runs]) -> None:
    _, through = runs
    failing = {name: sorted(each.broken) for name, each in through[revision].items() if each.failed}
    assert failing == expected().checks(revision), "expected.yaml is not true; `make conformance` says where"


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_gateway_answers_every_scenario_that_the_example_server_answers(
    revision: str, runs: tuple[Runs, Runs]
) -> None:
    direct, through = runs
    assert set(through[revision]) == set(direct[revision])


@pytest.mark.parametrize("revision", REVISIONS)
def test_what_passes_while_showing_less_is_said_to(revision: str, runs: tuple[Runs, Runs]) -> None:
    direct, through = runs
    assert showing_less(direct[revision], through[revision]) == set(expected().less.get(revision, {}))


def test_every_scenario_expected_to_fail_has_a_reason_and_every_reason_a_scenario() -> None:
    known = expected()
    used = {why for scenarios in known.failing.values() for why, _ in scenarios.values()}
    assert used == set(known.reasons)
    assert all(checks for scenarios in known.failing.values() for _, checks in scenarios.values())


def test_the_page_about_conformance_is_what_the_suite_says_today(runs: tuple[Runs, Runs]) -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(*runs), "run `make conformance`"


def test_every_demand_of_authorization_is_tried_by_tests_that_are_there_or_says_why_not() -> None:
    assert missing() == []
    for items in demands().values():
        for each in items:
            assert bool(each.get("tests")) != bool(each.get("why")), each["id"]


@pytest.mark.parametrize("rfc", sorted(SECTIONS))
def test_every_section_of_the_best_practices_has_a_row(rfc: str) -> None:
    sources = [each["source"] for items in demands().values() for each in items]
    named = {
        section
        for source in sources
        for part in source.split(";")
        if part.strip().startswith(rfc)
        for section in re.findall(r"\b\d+\.\d+(?:\.\d+)?\b", part)
    }
    assert set(SECTIONS[rfc]) - named == set()
