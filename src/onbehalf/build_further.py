"""Opens the token service for backends that call further, where some may.

Like build.py, names concrete doors. Must not hold a rule.
"""

from __future__ import annotations

import orjson

from onbehalf.build import Ports
from onbehalf.config import McpUpstream, OpenapiUpstream, Settings
from onbehalf.doors.inbound_txn import TxnApp
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.signer_file import FileSigner
from onbehalf.errors import ConfigInvalid
from onbehalf.further import Furthering, Workload
from onbehalf.identify import public_keys
from onbehalf.places import Paths

__all__ = ["open_further"]

_LEAST_SECRET = 32


def open_further(settings: Settings, places: Paths, *, issuer: str, signer: FileSigner, ports: Ports) -> TxnApp | None:
    """The token service; None where no backend may call further. Raises ConfigInvalid."""
    served = {
        name: upstream for name, upstream in settings.upstreams.items()
        if isinstance(upstream, McpUpstream | OpenapiUpstream)
    }  # fmt: skip
    workloads: dict[str, Workload] = {}
    for name, upstream in served.items():
        if upstream.further is None:
            continue
        unknown = sorted(set(upstream.further.to) - served.keys())
        if unknown:
            raise ConfigInvalid(
                f"`upstreams.{name}.further.to` names `{unknown[0]}`, which is no MCP server or HTTP API here",
                hint="a database takes no call tokens from others",
            )
        secret = resolved(
            upstream.further.secret, base=places.config.resolve().parent, what=f"upstreams.{name}.further.secret"
        )
        if len(secret) < _LEAST_SECRET:
            raise ConfigInvalid(
                f"`upstreams.{name}.further.secret` is shorter than {_LEAST_SECRET} characters",
                hint="make one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        audiences = frozenset(served[each].audience or served[each].url for each in upstream.further.to)
        workloads[name] = Workload(
            name=name, audience=upstream.audience or upstream.url, secret=secret, further=audiences
        )
    if not workloads:
        return None
    furthering = Furthering(
        workloads, issuer=issuer, keys=lambda: public_keys(orjson.dumps(signer.jwks()), issuer=issuer),
        sign=signer.keys.sign, ledger=ports.ledger, clock=ports.clock,
    )  # fmt: skip
    return TxnApp(furthering, seconds=settings.gateway.limits.call_seconds)
