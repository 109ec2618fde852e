"""An API in Flask that knows who calls: one line of `onbehalf.backend` around it.

    python examples/flask_orders.py http://127.0.0.1:8100 http://127.0.0.1:9101

The first argument is the gateway's origin, the second this API's own URL, as `url` in onbehalf.yaml; the gateway has
the document orders.openapi.json too. Every request needs a call token for this API, its operation and its arguments.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, abort, request

from onbehalf.backend import VerifiedCall
from onbehalf.backend.wsgi import CALL_KEY, HttpCallTokenMiddleware

DOCUMENT = Path(__file__).with_name("orders.openapi.json")
ORDERS = {("acme", "1"): ["alice", "open"], ("acme", "2"): ["bob", "open"], ("globex", "3"): ["hank", "open"]}
app = Flask(__name__)


def told(tenant: str, order_id: str) -> dict[str, Any]:
    owner, state = ORDERS[tenant, order_id]
    return {"id": order_id, "tenant": tenant, "owner_id": owner, "state": state}


@app.get("/orders")
def list_orders() -> Any:
    call: VerifiedCall = request.environ[CALL_KEY]
    found = [told(*key) for key in ORDERS if key[0] == call.tenant]
    return {"orders": [each for each in found if request.args.get("state") in (None, each["state"])]}


@app.patch("/orders/<order_id>")
def change_order(order_id: str) -> Any:
    call: VerifiedCall = request.environ[CALL_KEY]
    if (call.tenant, order_id) not in ORDERS:
        abort(404)
    ORDERS[call.tenant, order_id][1] = request.get_json()["state"]
    app.logger.warning("%s changed order %s in call %s", call.person, order_id, call.call)
    return {"orders": [told(call.tenant, order_id)]}


def main(gateway: str, url: str) -> None:
    """Serve until Ctrl-C."""
    app.wsgi_app = HttpCallTokenMiddleware(  # type: ignore[method-assign]  # as Flask's documentation says to
        app.wsgi_app, issuer=gateway, audience=url, operations=DOCUMENT.read_bytes(),
        jwks_url=f"{gateway}/.well-known/jwks.json",
    )  # fmt: skip
    where = urlsplit(url)
    app.run(where.hostname, where.port)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
