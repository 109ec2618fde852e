"""The orders service behind a gateway, each in a process of its own, the call token checked at the far end."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

import onbehalf.demo
from company import Company, company, wait_for

DOCUMENT = Path(onbehalf.demo.__file__).parent / "orders.json"
UPSTREAM = """
  orders:
    kind: openapi
    url: "@URL@"
    document: orders.json
    digest: "@DIGEST@"
    tools:
      orders_list:
        remote: listOrders
        action: readOrder
        scoped: true
        bound: {tenant: {tenant: true}}
        rows: {type: Order, at: orders, attributes: {owner: owner_id User}}
      order_get:
        remote: getOrder
        action: readOrder
        scoped: true
        bound: {tenant: {tenant: true}}
        rows: {type: Order, at: order, attributes: {owner: owner_id User}}
      order_change:
        remote: changeOrder
        action: changeOrder
        writes: true
        bound: {tenant: {tenant: true}}
        resource: {tool: order_get, argument: order_id}
"""
SCHEMA = """
entity Order { tenant: Tenant, owner: User };
action readOrder, changeOrder appliesTo { principal: User, resource: [Tool, Order], context: Context };
action readNote"""
POLICY = """
@id("own-orders") @doc("Everyone reads and changes their own orders.") @remedy("Ask the owner.")
permit (principal, action in [Action::"readOrder", Action::"changeOrder"], resource is Order)
  when { resource.owner == principal };
@id("own")"""


@contextmanager
def before_orders(directory: Path) -> Iterator[tuple[Company, str]]:
    with company(directory) as made:
        command = [sys.executable, "-m", "onbehalf.demo.orders", "--gateway", made.gateway]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = json.loads(process.stdout.readline())["url"]
                (directory / "orders.json").write_bytes(DOCUMENT.read_bytes())
                digest = "sha256:" + hashlib.sha256(DOCUMENT.read_bytes()).hexdigest()
                text = UPSTREAM.replace("@URL@", url).replace("@DIGEST@", digest)
                made.edit("\nupstreams:", "\nupstreams:" + text.rstrip())
                made.edit('\n@id("own")', POLICY, name="policies/own.cedar")
                made.edit("\naction readNote", SCHEMA, name="policies/own.cedarschema")
                wait_for(lambda: httpx2.get(url, trust_env=False).status_code == 404, what="the orders service")
                with made.serving():
                    yield made, url
            finally:
                process.terminate()


def test_orders_come_back_one_by_one_and_only_for_who_may_see_them(tmp_path: Path) -> None:
    with before_orders(tmp_path) as (made, url):
        listed = made.call("orders_list", status="open")
        assert [each["id"] for each in listed["structuredContent"]["orders"]] == ["O-1"]
        assert made.call("order_get", order_id="O-1")["structuredContent"]["order"]["total"] == 1200

        theirs, absent = made.call("order_get", order_id="O-2"), made.call("order_get", order_id="O-9")
        assert "bob" not in json.dumps(theirs)
        assert theirs["content"] == absent["content"]

        changed = made.call("order_change", order_id="O-1", status="shipped")
        assert changed["structuredContent"]["order"]["status"] == "shipped"
        assert made.call("orders_list", status="open")["structuredContent"]["orders"] == []
        refused = made.call("order_change", order_id="O-2", status="shipped")
        assert refused["isError"] is True

        bound = made.call("orders_list", tenant="globex")
        assert "globex" not in json.dumps(bound)
        assert "hank" not in json.dumps(bound)

        direct = httpx2.get(f"{url}/tenants/acme/orders", trust_env=False)
        assert direct.status_code == 401
