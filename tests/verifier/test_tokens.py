"""Call tokens that a backend kept are held against the record: each is of one intent, or it is found."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from company import Company, company, said
from onbehalf.app import building
from onbehalf.doors.signer_file import FileSigner
from onbehalf.model import Json, Presented, ToolRequest
from onbehalf.verifier.command import main
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.tokens import CallTokens


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """Alice writes twice and reads once; the desk keeps the tokens."""
    with company(tmp_path_factory.mktemp("tokens") / "it") as made:

        async def calls() -> None:
            async with building(made.config) as app:
                for tool in ("desk_write", "desk_read", "desk_write"):
                    arguments: dict[str, Json] = {"word": tool}
                    request = ToolRequest(tool=tool, arguments=arguments, protocol="2026-07-28", agent="tests/1")
                    await app.gateway.call(Presented(token=made.token("alice-at-login")), request)

        asyncio.run(calls())
        yield made


@pytest.fixture(scope="module")
def opened(recorded: Company, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "all.zip"
    assert said("audit", "export", "-c", recorded.config, "--open", "all", out).code == 0
    return out


def checked(made: Company, bundle: Path, *tokens: str) -> tuple[int, dict[str, Any], set[str]]:
    """The exit code, what was counted, and the codes of what was found."""
    place, out = bundle.parent / "kept.txt", io.StringIO()
    place.write_text("".join(f"{token}\n" for token in tokens))
    key = str(made.directory / "data" / "keys" / "log.pub")
    with contextlib.redirect_stdout(out):
        code = main([str(bundle), "--key-file", key, "--call-tokens", str(place), "--json"])
    report = json.loads(out.getvalue())
    return code, report["call_tokens"], {each["code"] for each in report["findings"]}


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def signed(made: Company, claims: dict[str, Any]) -> str:
    """As the gateway's own key would sign it, which a thief may have."""
    return FileSigner(made.directory / "data" / "keys", issuer="https://x.example").keys.sign(
        json.dumps(claims).encode()
    )


def test_each_token_that_was_sent_is_of_one_intent(recorded: Company, opened: Path) -> None:
    code, counted, found = checked(recorded, opened, *recorded.desk.tokens)
    assert (code, found) == (0, set())
    assert counted == {"given": 3, "matched": 3, "off_record": 0, "invalid": 0, "repeated": 0, "outside": 0}


def test_tokens_are_matched_where_nothing_is_opened(recorded: Company, tmp_path: Path) -> None:
    out = tmp_path / "closed.zip"
    assert said("audit", "export", "-c", recorded.config, out).code == 0
    code, counted, found = checked(recorded, out, *recorded.desk.tokens, "", recorded.desk.tokens[0])
    assert (code, found, counted["matched"], counted["repeated"]) == (0, set(), 3, 1)


def test_tokens_of_leaves_that_are_not_here_are_counted_apart(recorded: Company, tmp_path: Path) -> None:
    out = tmp_path / "part.zip"
    assert said("audit", "export", "-c", recorded.config, "--from", "3", out).code == 0
    code, counted, _ = checked(recorded, out, *recorded.desk.tokens)
    assert (code, counted["matched"], counted["outside"]) == (0, 2, 1)


def changed(token: str, path: str, value: Any) -> dict[str, Any]:
    found = claims_of(token)
    *parents, last = path.split(".")
    at = found
    for each in parents:
        at = at[each]
    at[last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tctx.record.leaf", "sha256:" + "0" * 64), ("tctx.record.index", 0), ("tctx.record.index", 2),
        ("tctx.record.index", 3), ("txn", "call_" + "0" * 32), ("jti", "x"), ("iat", 1), ("iat", True),
    ],
)  # fmt: skip
def test_a_token_without_an_intent_is_off_the_record(recorded: Company, opened: Path, path: str, value: Any) -> None:
    forged = signed(recorded, changed(recorded.desk.tokens[0], path, value))
    code, counted, found = checked(recorded, opened, forged)
    assert (code, found, counted["off_record"]) == (1, {"token_off_record"}, 1)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sub", "acme/bob"), ("sub", "service:acme/alice"), ("scope", "readDesk"), ("tctx.tool", "other"),
        ("tctx.action", "x"), ("tctx.arguments", "sha256:" + "0" * 64), ("tctx.tenant", "globex"),
        ("tctx.resource", {"type": "Tool", "id": "desk_read"}), ("rctx.client", "x"), ("rctx.subject", "bob"),
        ("rctx.issuer", "https://other.example"), ("rctx", None), ("rctx", {}),
    ],
)  # fmt: skip
def test_a_token_that_says_another_thing_than_its_intent_is_found(
    recorded: Company, opened: Path, path: str, value: Any
) -> None:
    forged = signed(recorded, changed(recorded.desk.tokens[0], path, value))
    code, counted, found = checked(recorded, opened, forged)
    assert (code, found, counted["matched"]) == (1, {"token_differs"}, 1)


def test_two_tokens_of_one_sending_are_found(recorded: Company, opened: Path) -> None:
    more = signed(recorded, {**claims_of(recorded.desk.tokens[0]), "exp": 1})
    code, counted, found = checked(recorded, opened, recorded.desk.tokens[0], more)
    assert (code, found, counted["matched"]) == (1, {"token_twice"}, 2)


def test_members_that_are_not_known_are_let_be(recorded: Company, opened: Path) -> None:
    more = {**claims_of(recorded.desk.tokens[0]), "chan": {"n": 7}}
    more["tctx"]["later"] = [1]
    assert checked(recorded, opened, signed(recorded, more))[0] == 0


def test_a_token_that_is_not_the_gateways_is_invalid(recorded: Company, opened: Path, tmp_path: Path) -> None:
    good = recorded.desk.tokens[0]
    head, body, signature = good.split(".")
    other = FileSigner.open(tmp_path, issuer="https://x.example", now=1)  # type: ignore[arg-type]  # a time
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"txntoken+jwt"}').rstrip(b"=").decode()
    for bad in (
        f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{body}.", f"{none}.{body}.{signature}", "x", "a.b.c",
        other.keys.sign(json.dumps(claims_of(good)).encode()), recorded.token("alice-at-login"), "\u00e9.x.y",
        signed(recorded, {}), signed(recorded, changed(good, "tctx.record", 7)),
        signed(recorded, changed(good, "tctx.record.index", "1")),
    ):  # fmt: skip
        code, counted, found = checked(recorded, opened, bad)
        assert (code, found, counted["invalid"]) == (1, {"token_invalid"}, 1), bad


def test_a_file_that_cannot_be_read_or_is_none_is_2(
    recorded: Company, opened: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(opened), "--call-tokens", str(tmp_path / "none")]) == 2
    (tmp_path / "long").write_bytes(b"a" * 9000)
    assert main([str(opened), "--call-tokens", str(tmp_path / "long")]) == 2
    assert "line too long" in capsys.readouterr().err


def test_a_token_of_a_call_further_is_held_against_its_own_leaf(tmp_path: Path) -> None:
    call, leaf_hash = "call_" + "1" * 32, bytes(32)
    facts = {"audience": "https://b", "tool": "t", "arguments": "sha256:1", "subject": "acme/alice", "scope": "s"}
    claims: dict[str, Any] = {
        "txn": call, "jti": f"{call}.4", "iat": 10, "aud": "https://b", "sub": "acme/alice", "scope": "s", "rctx": {},
        "tctx": {"tool": "t", "arguments": "sha256:1", "record": {"index": 4, "leaf": "sha256:" + "0" * 64}},
    }  # fmt: skip
    signer = FileSigner.open(tmp_path, issuer="https://x.example", now=1)  # type: ignore[arg-type]  # a time
    leaf = Leaf(kind="further", call=call, at=10, of=-1, names=(), commitments=[])
    for name, value in (("", None), ("aud", "https://c"), ("sub", "acme/bob")):
        (tmp_path / "kept").write_text(
            signer.keys.sign(json.dumps({**claims, **({name: value} if name else {})}).encode())
        )
        tokens = CallTokens(tmp_path / "kept")
        assert [*tokens.read(signer.jwks(), 0, 9)] == []
        assert [code for code, _ in tokens.take(4, leaf, leaf_hash, facts)] == (["token_differs"] if name else [])
