"""Keys are shown and rotated by command, and a running gateway takes them over on SIGHUP."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from company import Company, company, said, wait_for
from onbehalf.doors.clock_system import now
from onbehalf.doors.signer_file import CACHE_S, FileSigner
from onbehalf.model import UnixTime


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    """A company whose signing keys were made long enough ago to be rotated."""
    with company(tmp_path / "it") as made:
        FileSigner.open(keys_of(made), issuer=made.gateway, now=UnixTime(now() - CACHE_S - 1))
        yield made


def keys_of(made: Company) -> Path:
    return made.directory / "data" / "keys"


def kids(made: Company) -> list[str]:
    told = said("keys", "show", "-c", made.config)
    assert told.code == 0
    return [line.split()[1] for line in told.out.splitlines() if line.split()[0] in ("next", "current", "former")]


def test_public_keys_are_shown_and_no_secret(around: Company) -> None:
    told = said("keys", "show", "-c", around.config)
    shown = json.loads(said("keys", "show", "-c", around.config, "--json").out)
    assert [key["kid"] for key in shown["jwks"]["keys"]] == kids(around)
    assert "(no record yet)" in told.out
    stored = json.loads((keys_of(around) / "calls.keys").read_text())
    for text in (told.out, json.dumps(shown)):
        assert stored["next"]["seed"] not in text
        assert stored["current"]["seed"] not in text
    assert all("d" not in key for key in shown["jwks"]["keys"])


def test_rotating_lets_the_next_key_sign_and_keeps_publishing_the_former(around: Company) -> None:
    upcoming, current = kids(around)
    told = said("keys", "rotate", "-c", around.config)
    assert told.code == 0
    assert "kill -HUP" in told.out
    fresh, *rest = kids(around)
    assert rest == [upcoming, current]
    assert fresh not in (upcoming, current)
    assert "former    " + current in said("keys", "show", "-c", around.config).out


def test_rotating_too_early_is_an_error_that_says_when(around: Company) -> None:
    said("keys", "rotate", "-c", around.config)
    before = (keys_of(around) / "calls.keys").read_bytes()
    told = said("keys", "rotate", "-c", around.config)
    assert (told.code, told.out) == (2, "")
    assert "rotate in 300 s" in told.err or "rotate in 299 s" in told.err
    assert (keys_of(around) / "calls.keys").read_bytes() == before


def test_lost_keys_are_replaced_at_once_and_none_stays_published(around: Company) -> None:
    before = kids(around)
    for _ in range(2):
        told = said("keys", "rotate", "--lost", "-c", around.config)
        assert told.code == 0
        assert "All keys are new" in told.out
        assert not set(before) & set(kids(around))
    assert stat.S_IMODE((keys_of(around) / "calls.keys").stat().st_mode) == 0o600


@pytest.mark.parametrize("command", [["keys", "show"], ["keys", "rotate"], ["keys", "rotate", "--lost"]])
def test_no_command_makes_keys_where_there_are_none(tmp_path: Path, command: list[str]) -> None:
    with company(tmp_path / "it", desk=False) as made:
        told = said(*command, "-c", made.config)
        assert (told.code, told.out) == (2, "")
        assert "onbehalf serve" in told.err
        assert not (made.directory / "data").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[" * 9000])
def test_a_key_file_that_holds_no_keys_is_an_error_that_does_not_quote_it(around: Company, content: bytes) -> None:
    (keys_of(around) / "calls.keys").write_bytes(content)
    told = said("keys", "show", "-c", around.config)
    assert told.code == 2
    assert "does not hold keys" in told.err
    (keys_of(around) / "calls.keys").chmod(0o644)
    assert "chmod 600" in said("keys", "rotate", "-c", around.config).err


def test_a_public_key_of_the_record_that_is_no_text_is_an_error(around: Company) -> None:
    (keys_of(around) / "log.pub").write_bytes(b"\xff\xfe")
    told = said("keys", "show", "-c", around.config)
    assert (told.code, "internal" in told.err) == (2, False)


def test_a_running_gateway_signs_with_the_new_key_after_sighup_and_old_tokens_still_verify(around: Company) -> None:
    with around.serving() as process:
        _, current = kids(around)
        around.call("desk_read")
        said("keys", "rotate", "-c", around.config)
        around.call("desk_read")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "keys taken over" in around.served_log(), what="the new keys")
        around.call("desk_read")
        published = KeySet.import_key_set(around.get("/.well-known/jwks.json", public=True).json())
        (_, *signing) = kids(around)
        headers = [jwt.decode(token, published, algorithms=["EdDSA"]).header for token in around.desk.tokens]
        assert [header["kid"] for header in headers] == [current, current, signing[0]]
    records = json.loads(said("audit", "list", "-c", around.config, "--json", "-n", "50").out)["records"]
    assert [record["kind"] for record in records if record["kind"] == "key_change"] == ["key_change"]


def test_a_broken_key_file_at_sighup_leaves_the_old_keys_signing(around: Company) -> None:
    with around.serving() as process:
        (keys_of(around) / "calls.keys").write_bytes(b"{}")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "the old keys stay in force" in around.served_log(), what="the refusal")
        assert around.call("desk_read")["content"]
        assert "onbehalf_problems 1.0" in around.get("/metrics").text
