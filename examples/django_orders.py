"""An API in Django that knows who calls: one line of `onbehalf.backend` around its WSGI application.

    python examples/django_orders.py http://127.0.0.1:8100 http://127.0.0.1:9102

The first argument is the gateway's origin, the second this API's own URL, as `url` in onbehalf.yaml; the gateway has
the document orders.openapi.json too. In a project of your own, what `main` wraps is `application` in wsgi.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_http_methods

from onbehalf.backend import VerifiedCall
from onbehalf.backend.wsgi import CALL_KEY, HttpCallTokenMiddleware

DOCUMENT = Path(__file__).with_name("orders.openapi.json")
ORDERS = {("acme", "1"): ["alice", "open"], ("acme", "2"): ["bob", "open"], ("globex", "3"): ["hank", "open"]}


def told(tenant: str, order_id: str) -> dict[str, Any]:
    owner, state = ORDERS[tenant, order_id]
    return {"id": order_id, "tenant": tenant, "owner_id": owner, "state": state}


@require_http_methods(["GET"])
def list_orders(request: HttpRequest) -> HttpResponse:
    call: VerifiedCall = request.META[CALL_KEY]
    found = [told(*key) for key in ORDERS if key[0] == call.tenant]
    return JsonResponse({"orders": [each for each in found if request.GET.get("state") in (None, each["state"])]})


# There is no cookie here that another site could make a browser send, hence no CSRF middleware below.
@require_http_methods(["PATCH"])
def change_order(request: HttpRequest, order_id: str) -> HttpResponse:
    call: VerifiedCall = request.META[CALL_KEY]
    if (call.tenant, order_id) not in ORDERS:
        return HttpResponse(status=404)
    ORDERS[call.tenant, order_id][1] = json.loads(request.body)["state"]
    return JsonResponse({"orders": [told(call.tenant, order_id)]})


urlpatterns = [path("orders", list_orders), path("orders/<order_id>", change_order)]


def main(gateway: str, url: str) -> None:
    """Serve until Ctrl-C."""
    where = urlsplit(url)
    settings.configure(ALLOWED_HOSTS=[where.hostname], ROOT_URLCONF=__name__, MIDDLEWARE=[])
    application = HttpCallTokenMiddleware(
        get_wsgi_application(), issuer=gateway, audience=url, operations=DOCUMENT.read_bytes(),
        jwks_url=f"{gateway}/.well-known/jwks.json",
    )  # fmt: skip
    make_server(where.hostname or "127.0.0.1", where.port or 9102, application).serve_forever()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
