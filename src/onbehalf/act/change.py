"""The name of a change set that was shown: to whom, of which call, under which rules, and what would change.

Must not remember names: a door does.
"""

from __future__ import annotations

import hmac

from onbehalf.model import Allow, Digest, Json, canonical

__all__ = ["SHOWN_S", "change_set"]

SHOWN_S = 900
"""How long a change set that was shown may be made, in seconds."""


def change_set(allow: Allow, changed: str, *, key: bytes) -> Digest:
    """The name under which this change may be asked for. `changed` is the upstream's digest over what would change.

    Another person, client, tool, argument, policy, directory or database makes it another name. It is made with a
    secret, or whoever is shown it could try which hidden field it is a digest of.
    """
    call = allow.call
    bound: dict[str, Json] = {
        "tenant": call.caller.tenant, "person": call.person.known_as, "client": call.caller.client,
        "tool": call.tool.name, "definition": call.tool.definition, "arguments": call.digest,
        "policy": allow.policy, "revision": allow.revision, "changed": changed,
    }  # fmt: skip
    return Digest("sha256:" + hmac.new(key, b"onbehalf/change/v1\0" + canonical(bound), "sha256").hexdigest())
