"""The examples in Flask, Django and FastAPI run as their own text says, behind a real gateway."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from company import Company, company, wait_for
from ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
UPSTREAM = """
orders:
  kind: openapi
  url: "{url}"
  document: orders.json
  digest: "sha256:{digest}"
  tools:
    orders_list:
      remote: listOrders
      action: readOrder
      scoped: true
      rows: {{type: Order, at: orders, attributes: {{owner: owner_id User}}}}
    order_change:
      remote: changeOrder
      action: changeOrder
      writes: true
      rows: {{type: Order, at: orders, attributes: {{owner: owner_id User}}}}
"""
SCHEMA = """
entity Order { tenant: Tenant, owner: User };
action readOrder, changeOrder appliesTo { principal: User, resource: [Tool, Order], context: Context };
"""
POLICIES = """
@id("orders-ask") @doc("Everyone asks for orders.") @remedy("Nothing.")
permit (principal, action in [Action::"readOrder", Action::"changeOrder"], resource is Tool);
@id("orders-own") @doc("Everyone has their own orders.") @remedy("Ask the owner.")
permit (principal, action in [Action::"readOrder", Action::"changeOrder"], resource is Order)
when { resource.owner == principal };
"""


@contextmanager
def running(name: str, gateway: str, url: str) -> Iterator[None]:
    """The example, in a process of its own, started as its text says."""
    command = [sys.executable, str(EXAMPLES / f"{name}_orders.py"), gateway, url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: _status(f"{url}/orders") == 401, what=f"the example in {name}")
            yield
        finally:
            process.kill()


def _status(url: str) -> int:
    try:
        return httpx2.get(url, timeout=5, trust_env=False).status_code
    except httpx2.TransportError:
        return 0


@pytest.fixture(params=["flask", "django", "fastapi"])
def around(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Company, str]]:
    with company(tmp_path / "it") as made:
        url = f"http://127.0.0.1:{free_port()}"
        with running(request.param, made.gateway, url):
            if request.param == "fastapi":
                document = httpx2.get(f"{url}/openapi.json", timeout=5, trust_env=False).content
            else:
                document = (EXAMPLES / "orders.openapi.json").read_bytes()
            (made.directory / "orders.json").write_bytes(document)
            upstream = UPSTREAM.format(url=url, digest=hashlib.sha256(document).hexdigest())
            made.edit("\nupstreams:\n", "\nupstreams:\n" + textwrap.indent(upstream, "  "))
            (made.directory / "policies" / "orders.cedarschema").write_text(SCHEMA)
            (made.directory / "policies" / "orders.cedar").write_text(POLICIES)
            with made.serving():
                yield made, url


def states(found: Any) -> dict[str, str]:
    return {each["id"]: each["state"] for each in found["structuredContent"]["orders"]}


def test_a_person_reads_and_changes_through_the_gateway_and_nobody_without(around: tuple[Company, str]) -> None:
    made, url = around
    bob = made.token("bob-at-login")
    assert states(made.call("orders_list")) == {"1": "open"}
    assert states(made.call("orders_list", token=bob)) == {"2": "open"}
    assert states(made.call("orders_list", state="closed")) == {}
    assert states(made.call("order_change", order_id="1", state="closed")) == {"1": "closed"}
    assert states(made.call("orders_list", state="closed")) == {"1": "closed"}
    assert made.call("order_change", order_id="3", state="closed")["isError"] is True  # another tenant's is not there
    for answer in (
        httpx2.get(f"{url}/orders", timeout=5, trust_env=False),
        httpx2.patch(f"{url}/orders/1", json={"state": "open"}, timeout=5, trust_env=False),
        httpx2.get(f"{url}/orders", headers={"Txn-Token": bob}, timeout=5, trust_env=False),
    ):
        assert answer.status_code == 401
        assert answer.json()["error"] in ("call_token_missing", "call_token_refused")
    assert states(made.call("orders_list", state="closed")) == {"1": "closed"}
