"""The part of `onbehalf check` about exchanges: can the issuer do it, by its own metadata, and whose tokens can be.

No token is exchanged: nobody's is at hand. Must not print.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Literal

from onbehalf.act.exchange import EXCHANGE_GRANT, ON_BEHALF_GRANT
from onbehalf.build_exchange import exchanging, token_client
from onbehalf.config import Settings
from onbehalf.config_upstreams import ExchangeSettings
from onbehalf.doors.issuer_client import TokenClient
from onbehalf.doors.issuer_fetch import FetchFailed, IssuerFetcher
from onbehalf.model import Json

__all__ = ["Said", "said_of_exchanges"]

Said = tuple[Literal["ok", "warning", "problem"], str, str, str]
"""How bad, about what, what, and what to do."""
_GRANTS = {"token-exchange": EXCHANGE_GRANT, "entra": ON_BEHALF_GRANT}


async def said_of_exchanges(settings: Settings, *, base: Path) -> AsyncIterator[Said]:
    """Everything to be said. `base` is where references start. Raises ConfigInvalid."""
    fetcher = IssuerFetcher(insecure_http=settings.gateway.insecure_http_for_tests)
    issuers = {each.issuer: each for each in settings.issuers}
    try:
        for name, rule in exchanging(settings).items():
            what, client = f"exchange {name}", token_client(name, rule, base=base)
            others = sorted(issuers.keys() - {rule.issuer})
            if others:
                text = f"people with tokens of {others[0]} cannot use it: only tokens of {rule.issuer} are exchanged"
                yield "warning", what, text, "if they are to, let them log in there"
            fetcher.check(issuers[rule.issuer])
            try:
                metadata = await fetcher.metadata(issuers[rule.issuer], "token_endpoint")
            except FetchFailed as error:
                yield "problem", what, f"{rule.issuer} cannot be asked: {error}", "can this machine reach it?"
                continue
            yield _judged(what, rule, client, metadata)
    finally:
        await fetcher.aclose()


def _judged(what: str, rule: ExchangeSettings, client: TokenClient, metadata: Mapping[str, Json]) -> Said:
    grants, methods = (
        metadata.get(name) for name in ("grant_types_supported", "token_endpoint_auth_methods_supported")
    )
    wanted, endpoint = _GRANTS[rule.grant], metadata["token_endpoint"]
    if isinstance(methods, list) and client.method not in methods:
        text = f"{rule.issuer} does not take `{client.method}`, by which the gateway would prove itself"
        return "problem", what, text, "set `client_key` or `client_secret`, whichever it takes"
    if isinstance(grants, list) and wanted not in grants:
        text = f"the metadata of {rule.issuer} does not have the grant `{wanted}`"
        return "problem", what, text, "turn it on there, or use another way to this API (docs/your-api.md)"
    if not isinstance(grants, list):
        text = f"the metadata of {rule.issuer} does not say whether it has the grant `{wanted}`"
        return "warning", what, text, "try one call, and look at it with `onbehalf explain last`"
    return "ok", what, f"{rule.issuer} has the grant, at {endpoint}, the only place a person's token may go", ""
