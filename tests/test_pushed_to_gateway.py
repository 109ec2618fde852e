"""One gateway's record, pushed as signed security events to another one, which takes them as from any transmitter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from company import Company, company, said
from onbehalf.cli.explain import opened
from onbehalf.explain.views_set import EVENT
from test_app import recorded
from transmitter import BEARER

AUDIENCE = "https://other.example/signals"


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Company, Company]]:
    """Who sends, with a call on record, and who receives."""
    monkeypatch.setenv("SIGNALS", BEARER)
    with company(tmp_path / "sends", desk=False) as sends, company(tmp_path / "receives", desk=False) as receives:
        sink = f'{{kind: push, url: "{receives.gateway}/signals/gateway", audience: "{AUDIENCE}", bearer: env:SIGNALS}}'
        sends.config.write_text(sends.config.read_text() + f"\nsinks:\n  events: {sink}\n")
        for name in ("onbehalf.yaml", "people.yaml"):  # both know the same logins: a stream speaks of no others
            file = receives.directory / name
            file.write_text(file.read_text().replace(receives.issuer.url, sends.issuer.url))
        stream = (
            f'{{name: gateway, issuer: "{sends.gateway}", audience: "{AUDIENCE}", tenant: acme, '
            f'logins: "{sends.issuer.url}", push: env:SIGNALS}}'
        )
        receives.edit("upstreams:\n", f"signals:\n  - {stream}\nupstreams:\n")
        sends.notes_listed("alice-at-login")
        yield sends, receives


def ids(made: Company) -> list[str]:
    """The ids of the records, in order."""
    reader = opened(made.config)
    try:
        with reader.snapshot() as view:
            return [json.loads(row[0])["id"] for row in view.execute("SELECT entry FROM leaf ORDER BY idx").fetchall()]
    finally:
        reader.close()


def test_a_gateway_takes_another_ones_record_as_security_events(both: tuple[Company, Company]) -> None:
    sends, receives = both
    with sends.serving(), receives.serving():
        metadata = httpx2.get(f"{sends.gateway}/.well-known/ssf-configuration", trust_env=False).json()
        assert metadata["issuer"] == sends.gateway
        published = httpx2.get(metadata["jwks_uri"], trust_env=False).json()["keys"]
        calls = httpx2.get(f"{sends.gateway}/.well-known/jwks.json", trust_env=False).json()["keys"]
        assert not {each["kid"] for each in published} & {each["kid"] for each in calls}, "one key, one kind of token"
        assert not any("d" in each for each in published)
        shown = json.loads(said("keys", "show", "-c", sends.config, "--json").out)
        assert shown["events"] == {"keys": published}
        told = said("audit", "send", "--once", "-c", sends.config, "--json")
        assert told.code == 0, told.err
        sent = json.loads(told.out)["sent"]["events"]
        (sends.directory / "data" / "sinks" / "events.json").unlink()  # a crash before the cursor moved
        assert said("audit", "send", "--once", "-c", sends.config).code == 0
    signals = recorded(receives, "signal")
    assert [each["id"] for each in signals][:sent] == ids(sends)[:sent]
    assert len({each["id"] for each in signals}) == len(signals), "what came twice counts once"
    assert {each["issuer"] for each in signals} == {sends.gateway}
    assert {event["type"] for each in signals for event in each["events"]} == {EVENT}
    assert {event["does"] for each in signals for event in each["events"]} == {"nothing"}, "it stops nobody"


def test_a_receiver_that_expects_another_audience_is_asked_no_further_and_says_why(
    both: tuple[Company, Company],
) -> None:
    sends, receives = both
    sends.edit(f'audience: "{AUDIENCE}"', 'audience: "https://elsewhere.example"')
    with sends.serving(), receives.serving():
        told = said("audit", "send", "--once", "-c", sends.config)
    assert told.code == 2
    assert "invalid_audience" in told.err
    assert said("audit", "send", "--status", "-c", sends.config, "--json").out.count('"next": 0') == 1
    assert recorded(receives, "signal") == []
