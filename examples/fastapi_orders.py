"""An API in FastAPI that knows who calls: `guard` in front, and a `Call` where a route wants to know.

    python examples/fastapi_orders.py http://127.0.0.1:8100 http://127.0.0.1:9103

The first argument is the gateway's origin, the second this API's own URL, as `url` in onbehalf.yaml; the gateway has
the document that this API gives at /openapi.json.
"""

from __future__ import annotations

import sys
from typing import Any, Literal
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict

from onbehalf.backend.fastapi import Call, guard

ORDERS = {("acme", "1"): ["alice", "open"], ("acme", "2"): ["bob", "open"], ("globex", "3"): ["hank", "open"]}
app = FastAPI()


class Change(BaseModel):
    model_config = ConfigDict(extra="forbid")
    state: Literal["open", "closed"]


def told(tenant: str, order_id: str) -> dict[str, Any]:
    owner, state = ORDERS[tenant, order_id]
    return {"id": order_id, "tenant": tenant, "owner_id": owner, "state": state}


@app.get("/orders", operation_id="listOrders")
def list_orders(call: Call, state: Literal["open", "closed", "any"] = "any") -> dict[str, Any]:
    found = [told(*key) for key in ORDERS if key[0] == call.tenant]
    return {"orders": [each for each in found if state in ("any", each["state"])]}


@app.patch("/orders/{order_id}", operation_id="changeOrder")
def change_order(call: Call, order_id: str, change: Change) -> dict[str, Any]:
    if (call.tenant, order_id) not in ORDERS:
        raise HTTPException(404)
    ORDERS[call.tenant, order_id][1] = change.state
    return {"orders": [told(call.tenant, order_id)]}


def main(gateway: str, url: str) -> None:
    """Serve until Ctrl-C."""
    guard(app, issuer=gateway, audience=url, jwks_url=f"{gateway}/.well-known/jwks.json")
    where = urlsplit(url)
    uvicorn.run(app, host=where.hostname or "127.0.0.1", port=where.port or 9103, log_level="warning")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
