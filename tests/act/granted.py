"""One allowed, recorded call, for the tests of act, of the signer door and of the backend."""

from __future__ import annotations

from dataclasses import replace

from onbehalf.act import grant
from onbehalf.model import (
    Allow,
    Caller,
    CallId,
    Digest,
    Evidence,
    Grant,
    Json,
    Person,
    Receipt,
    Ref,
    Tool,
    ToolCall,
    UnixTime,
    canonical,
    digest,
)  # fmt: skip

NOW = UnixTime(1_800_000_000)
ISSUER = "https://gateway.test"
AUDIENCE = "https://tickets.test/mcp"
CALL = CallId("call_0190a6f2b7c87d1e8f0a1b2c3d4e5f60")
ARGUMENTS: dict[str, Json] = {"ticket_id": "T-1001", "status": "closed", "tags": ["a", "é"], "weight": 1.5}
_TOOL = Tool(
    name="tickets_update", title="", description="", upstream="tickets", remote="update_ticket",
    action="tickets.update", scopes=frozenset(), schema={}, bound=(), rows=None, lookup=None, writes=True,
    exposed=True, definition=digest(b"definition"),
)  # fmt: skip
_EVIDENCE = Evidence(
    issuer="https://login.test", key="k", algorithm="ES256", token=digest(b"token"), issued_at=NOW,
    expires_at=UnixTime(NOW + 600),
)  # fmt: skip


def allowed(arguments: dict[str, Json] | None = None, *, tool: str = "update_ticket") -> Allow:
    data = canonical(ARGUMENTS if arguments is None else arguments)
    call = ToolCall(
        id=CALL, at=NOW, tool=replace(_TOOL, remote=tool), arguments=data, digest=digest(data), protocol="2026-07-28",
        agent="assistant/1.0",
        caller=Caller(
            subject="sub-1", tenant="acme", client="chat", actors=(), scopes=frozenset(), evidence=_EVIDENCE
        ),
        person=Person(
            ref=Ref(type="User", id="acme/alice"), tenant="acme", name="Alice", active=True, attributes={},
            entities=(), revision=7,
        ),
    )  # fmt: skip
    return Allow(
        call=call,
        resource=Ref(type="Ticket", id="acme/T-1001"),
        policies=("own",),
        policy=Digest("sha256:p"),
        revision=7,
    )


def receipt(index: int = 41) -> Receipt:
    return Receipt(index=index, leaf=digest(str(index).encode()), channel="c0ffee0123456789", number=index + 1)


def granted(
    arguments: dict[str, Json] | None = None, *, tool: str = "update_ticket", audience: str = AUDIENCE,
    now: UnixTime = NOW, index: int = 41,
) -> Grant:  # fmt: skip
    return grant(allowed(arguments, tool=tool), receipt(index), audience=audience, now=now)
