"""What every signer owes the corridor, run against each signer door."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry, deserialize_compact

from act.granted import AUDIENCE, ISSUER, NOW, granted
from onbehalf.act import claims
from onbehalf.doors.signer_file import FileSigner
from onbehalf.model import Json
from onbehalf.ports import Signer

Door = Callable[[Path], tuple[Signer, Callable[[], Mapping[str, Json]]]]


def _file(directory: Path) -> tuple[Signer, Callable[[], Mapping[str, Json]]]:
    signer = FileSigner.open(directory, issuer=ISSUER, now=NOW)
    return signer, signer.jwks


@pytest.fixture(params=[_file], ids=["file"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Signer, Callable[[], Mapping[str, Json]]]:
    made: Door = request.param
    return made(tmp_path / "keys")


Opened = tuple[Signer, Callable[[], dict[str, Any]]]


def test_another_library_verifies_the_token_with_a_published_key(door: Opened) -> None:
    signer, jwks = door
    registry = JWSRegistry(algorithms=["EdDSA"])
    token = signer.sign(granted()).compact
    with pytest.warns(UserWarning, match="EdDSA"):
        read = deserialize_compact(token, KeySet.import_key_set(jwks()), algorithms=["EdDSA"], registry=registry)  # type: ignore[arg-type]
    assert json.loads(read.payload) == claims(granted(), issuer=ISSUER)
    assert read.headers() == {"typ": "txntoken+jwt", "alg": "EdDSA", "kid": read.headers()["kid"]}


def test_the_token_carries_its_grant_and_is_not_shown(door: Opened) -> None:
    token = door[0].sign(granted())
    assert token.grant == granted()
    assert token.compact not in repr(token)


def test_signing_the_same_grant_again_says_the_same(door: Opened) -> None:
    first, second = (door[0].sign(granted()).compact.split(".") for _ in range(2))
    assert first[:2] == second[:2]


def test_only_public_halves_are_published(door: Opened) -> None:
    for key in door[1]()["keys"]:
        assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
        assert len(base64.urlsafe_b64decode(key["x"] + "=")) == 32


def test_each_grant_names_its_own_audience(door: Opened) -> None:
    said = door[0].sign(granted(audience="sql:hr")).compact.split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(said + "=="))["aud"] == "sql:hr" != AUDIENCE
