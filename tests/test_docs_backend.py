"""docs/backend.md, followed as it stands: each of its blocks is run, and people call through a gateway."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import httpx2
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from act.granted import ARGUMENTS, AUDIENCE, ISSUER, NOW
from backend.forging import KEY, KID, forged
from company import Company, company, said, wait_for
from doors.postgres_house import plain
from onbehalf.backend import MemoryReplay, VerifiedCall, verify_call
from onbehalf.errors import CallTokenReplayed, ReceiptRefused, ReplayUnknown
from ports import free_port
from postgres import database, postgres, run  # noqa: F401  # fixtures
from test_app import recorded
from test_docs import blocks

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "backend.md"
FLASK, DJANGO, FASTAPI, MCP, REPLAY, ACTING, SIGNED, CHECK = blocks(PAGE, "python")
USED, OWN_POLICY, SIGNED_POLICY = blocks(PAGE, "sql")
(KEYS,) = blocks(PAGE, "sh")
(UPSTREAM,) = blocks(PAGE, "yaml")
DOCUMENT = {
    "openapi": "3.1.0", "info": {"title": "Orders", "version": "1"},
    "paths": {"/orders": {"get": {"operationId": "listOrders"}}},
}  # fmt: skip
SCHEMA = """
entity Order { tenant: Tenant, owner: User };
action readOrder appliesTo { principal: User, resource: [Tool, Order], context: Context };
"""
POLICIES = """
@id("orders-ask") @doc("Everyone asks for orders.") @remedy("Nothing.")
permit (principal, action == Action::"readOrder", resource is Tool);
@id("orders-own") @doc("Everyone has their own orders.") @remedy("Ask the owner.")
permit (principal, action == Action::"readOrder", resource is Order) when { resource.owner == principal };
"""
SERVE_FASTAPI = """
import uvicorn
uvicorn.run(app, port=9100, log_level="warning")
"""
ALICE = verify_call(
    forged(), keys={KID: bytes(KEY.verify_key)}, issuer=ISSUER, audience=AUDIENCE, tool="update_ticket",
    arguments=ARGUMENTS, now=NOW, replay=MemoryReplay(),
)  # fmt: skip


def run_as(code: str) -> dict[str, Any]:
    """What a block of the page defines."""
    made: dict[str, Any] = {"__name__": "block"}
    exec(compile(code, str(PAGE), "exec"), made)
    return made


@contextmanager
def around(directory: Path, code: str, upstream: str, document: bytes | None) -> Iterator[tuple[Company, str]]:
    """A gateway before the API of a block; without a `document` the API is asked for it."""
    with company(directory) as made:
        port = free_port()
        own, folder = f"http://127.0.0.1:{port}", made.directory
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(["bash", "-ec", KEYS], cwd=folder, check=True, env={**os.environ, "PATH": path})
        if document is not None:
            (folder / "orders.json").write_bytes(document)
        code = code.replace("https://gateway.example.com", made.gateway).replace("https://orders.example.com", own)
        (folder / "orders.py").write_text(code.replace("9100", str(port)), encoding="utf-8")
        log = (folder / "api.log").open("w")
        with log, subprocess.Popen([sys.executable, "orders.py"], cwd=folder, stdout=log, stderr=log) as process:
            try:
                wait_for(lambda: _status(f"{own}/orders") == 401, what="the API of the page")
                if document is None:
                    document = httpx2.get(f"{own}/openapi.json", timeout=5, trust_env=False).content
                    (folder / "orders.json").write_bytes(document)
                text = upstream.replace("0" * 64, hashlib.sha256(document).hexdigest())
                text = textwrap.indent(text.replace("https://orders.example.com", own), "  ")
                made.edit("\nupstreams:\n", "\nupstreams:\n" + text)
                (folder / "policies" / "orders.cedarschema").write_text(SCHEMA)
                (folder / "policies" / "orders.cedar").write_text(POLICIES)
                with made.serving():
                    yield made, own
            finally:
                process.kill()


def _status(url: str) -> int:
    try:
        return httpx2.get(url, timeout=5, trust_env=False).status_code
    except httpx2.TransportError:
        return 0


def orders(found: Any) -> list[str]:
    return [each["id"] for each in found["structuredContent"]["orders"]]


def test_the_flask_api_of_the_page_knows_who_calls_and_its_receipts_are_on_the_record(tmp_path: Path) -> None:
    with around(tmp_path / "it", FLASK, UPSTREAM, json.dumps(DOCUMENT).encode()) as (made, own):
        assert (made.directory / "receipt.key").stat().st_mode & 0o077 == 0
        assert orders(made.call("orders_list")) == ["1"]
        assert orders(made.call("orders_list", token=made.token("bob-at-login"))) == ["2"]
        answer = httpx2.get(f"{own}/orders", headers={"Txn-Token": made.token()}, timeout=5, trust_env=False)
        assert answer.status_code == 401
        assert "call_token_refused" in answer.text
        jwks = json.loads((made.directory / "receipts.json").read_text())
    assert "The backend signed for its answer: grade R3." in " ".join(
        said("explain", "last", "--config", made.config).out.split()
    )
    intents = [facts for facts in recorded(made, "intent") if facts["tool"]["name"] == "orders_list"]
    outcomes = [facts for facts in recorded(made, "outcome") if "backend_receipt" in facts]
    assert len(intents) == len(outcomes) == 2
    claimed = [_said(facts["backend_receipt"]) for facts in outcomes]
    check = run_as(CHECK)["check"]
    for intent, outcome, claims in zip(intents, outcomes, claimed, strict=True):
        told: dict[str, Any] = {
            "backend": own, "gateway": made.gateway, "call": claims["txn"], "index": outcome["intent"]["index"],
            "tool": "listOrders", "arguments": intent["arguments_digest"], "answer": claims["outcome"]["digest"],
            "since": claims["iat"] - 30, "until": claims["iat"] + 30,
        }  # fmt: skip
        assert check(outcome["backend_receipt"], jwks, **told).rows is None
        with pytest.raises(ReceiptRefused):
            check(outcome["backend_receipt"], jwks, **{**told, "index": told["index"] + 1})


def _said(receipt: str) -> dict[str, Any]:
    part = receipt.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def test_a_gateway_that_wants_receipts_takes_nothing_from_a_backend_that_signs_none(tmp_path: Path) -> None:
    code = FLASK.replace('receipts=receipt_key(Path("receipt.key").read_bytes()))', "receipts=None)")
    assert code != FLASK
    with around(tmp_path / "it", code, UPSTREAM, json.dumps(DOCUMENT).encode()) as (made, _):
        found = made.call("orders_list")
        assert found["isError"] is True
        assert "structuredContent" not in found or "orders" not in found["structuredContent"]
    failed = [facts["outcome"] for facts in recorded(made, "outcome")]
    assert [each["code"] for each in failed] == ["receipt_refused"]


def test_the_fastapi_of_the_page_knows_who_calls(tmp_path: Path) -> None:
    upstream = UPSTREAM.replace("  receipt_keys: receipts.json\n", "")
    with around(tmp_path / "it", FASTAPI + SERVE_FASTAPI, upstream, None) as (made, own):
        assert orders(made.call("orders_list")) == ["1"]
        assert orders(made.call("orders_list", token=made.token("bob-at-login"))) == []  # it gives alice's to all
        assert httpx2.get(f"{own}/docs", timeout=5, trust_env=False).status_code == 401


def test_the_django_application_of_the_page_refuses_who_has_no_call_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "orders.json").write_text(json.dumps(DOCUMENT))
    (tmp_path / "wsgi.py").write_text(
        "from django.conf import settings\nsettings.configure()\n" + DJANGO + "\nfrom io import BytesIO\n"
        "status = []\n"
        "environ = {'REQUEST_METHOD': 'GET', 'PATH_INFO': '/orders', 'wsgi.input': BytesIO()}\n"
        "application(environ, lambda text, headers: status.append(text))\nprint(status)\n"
    )
    done = subprocess.run([sys.executable, "wsgi.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "['401 Unauthorized']\n", done.stderr


def test_the_mcp_server_of_the_page_refuses_who_has_no_call_token() -> None:
    app = run_as(MCP)["app"]

    async def ask() -> httpx.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="https://desk.test") as http:
            return await http.post("/mcp", json=body)

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (401, "call_token_missing")


def test_the_shared_memory_of_the_page_takes_each_token_once_for_all(database: str) -> None:  # noqa: F811
    run(database, USED)
    made = run_as(REPLAY)["SharedReplay"]
    now = int(time.time())
    first, second = made(database), made(database)
    first.use("a", issued_at=now, until=now + 35, now=now)
    for each in (first, second):
        with pytest.raises(CallTokenReplayed):
            each.use("a", issued_at=now, until=now + 35, now=now)
    second.use("b", issued_at=now, until=now + 35, now=now)
    first.use("c", issued_at=now, until=now + 35, now=now + 96)
    assert run(database, "SELECT id FROM used_tokens") == [("c",)]
    with pytest.raises(ReplayUnknown):
        made("postgresql://nobody@127.0.0.1:9/none").use("d", issued_at=now, until=now, now=now)


@pytest.fixture
def application(database: str) -> str:  # noqa: F811
    """The DSN of the page's application, its table as the page makes it and filled."""
    for role in ("orders_app", "onbehalf_owner"):
        if run(database, f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
            run(database, f"DROP OWNED BY {role}; DROP ROLE {role}")
    run(database, "CREATE ROLE orders_app LOGIN PASSWORD 'for tests only'")
    run(database, OWN_POLICY)
    run(database, "INSERT INTO orders VALUES (1, 'acme', 'alice'), (2, 'acme', 'bob'), (3, 'globex', 'alice')")
    return make_conninfo(database, user="orders_app", password="for tests only")


def test_the_database_of_the_page_shows_each_person_their_own_rows(application: str) -> None:
    orders_of = run_as(ACTING)["orders_of"]
    with psycopg.connect(application) as connection:
        _sees_own(lambda call: orders_of(connection, call))
        assert connection.execute("SELECT id FROM orders").fetchall() == []


def test_the_database_of_the_page_believes_only_what_is_signed(application: str, database: str) -> None:  # noqa: F811
    made, secret = run_as(SIGNED), b"32 random bytes, or so it is told"
    for text in made["setup"](secret):
        run(database, plain(text))
    run(database, SIGNED_POLICY)
    with psycopg.connect(application) as connection:
        _sees_own(lambda call: made["orders_of"](connection, call, secret))
        assert made["orders_of"](connection, ALICE, b"another key, of thirty-two bytes") == []
        assert run_as(ACTING)["orders_of"](connection, ALICE) == []


def _sees_own(orders_of: Any) -> None:
    people: list[tuple[VerifiedCall, list[tuple[int]]]] = [
        (ALICE, [(1,)]), (replace(ALICE, person="bob"), [(2,)]), (replace(ALICE, tenant="globex"), [(3,)]),
        (replace(ALICE, tenant="globex", person="bob"), []),
    ]  # fmt: skip
    for call, expected in people:
        assert orders_of(call) == expected
