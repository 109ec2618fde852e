"""The company's login tells that a session is over: who came in through the broker is out, refresh token and all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from broker_house import broker_house
from onbehalf.validate.signals import RISC
from test_broker import called
from transmitter import AUDIENCE, BEARER, push, transmitting


def test_a_session_that_is_revoked_at_the_login_ends_tokens_and_refresh_tokens_of_the_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALS", BEARER)
    with broker_house(tmp_path / "it") as house, transmitting(house.login) as idp:
        made = f'name: idp, issuer: "{idp.url}", audience: "{AUDIENCE}", tenant: acme, logins: "{house.login}"'
        house.company.edit("upstreams:\n", f"signals: [{{{made}, push: env:SIGNALS}}]\nupstreams:\n")
        with house.company.serving():
            alice, carol = house.tokens(), house.tokens(account="carol-at-login")
            assert called(house, alice["access_token"])[0] == 200
            earlier = idp.set("session-revoked", {"event_timestamp": int(time.time()) - 600})
            assert push(house.at, earlier, name="idp").status_code == 202
            assert called(house, alice["access_token"])[0] == 200  # she logged in after that
            assert push(house.at, idp.set(), name="idp").status_code == 202
            assert called(house, alice["access_token"])[0] == 401
            refused = house.refreshed(alice["refresh_token"])
            assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
            about = {"format": "iss_sub", "iss": house.login, "sub": "carol-at-login"}
            assert house.refreshed(carol["refresh_token"]).status_code == 200
            disabled = idp.set(f"{RISC}account-disabled", sub_id=about)
            assert push(house.at, disabled, name="idp").status_code == 202
            assert called(house, carol["access_token"])[1]["_meta"]["onbehalf/denial"]["code"] == "blocked"
