"""What keeps a caller from a tool that the policies let them see: what its upstream, or a parameter, needs of a person.

Must not hold a rule of its own: each of these is what a call would be refused for, known from the configuration.
"""

from __future__ import annotations

from onbehalf.config import McpUpstream, OpenapiUpstream, Settings
from onbehalf.model import Caller, Tool

__all__ = ["out_of_reach"]


def out_of_reach(tool: Tool, caller: Caller, settings: Settings, *, pages: bool) -> tuple[str, str] | None:
    """Why every call of it by this caller is refused, with what to do; None where nothing is known to be in the way.

    `pages` is whether who shares the caller's login can log in to the gateway's own pages.
    """
    alone = caller.kind == "service"
    theirs = sorted(each.name for each in tool.bound if each.source == "principal" and each.name != "id")
    if alone and theirs:
        return f"a parameter is bound to a person's `{theirs[0]}` (arguments_refused)", "let a person call it"
    upstream = settings.upstreams[tool.upstream]
    if not isinstance(upstream, McpUpstream | OpenapiUpstream):
        return None
    if upstream.account is not None and (alone or not pages):
        hint = "let a person call it" if alone else "register the gateway at their issuer and set `login`"
        return "it needs an account of a person's own, which cannot be connected here (connection_needed)", hint
    if upstream.authorization is not None and alone:
        return "a service is not known in the other domain (upstream_login_failed)", "let a person call it"
    if upstream.exchange is not None and caller.evidence.issuer != upstream.exchange.issuer:
        text = f"only tokens of {upstream.exchange.issuer} are exchanged for it (exchange_impossible)"
        return text, "have them come with a token of that issuer"
    return None
