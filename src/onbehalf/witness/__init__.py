"""A witness: another team's small service that cosigns a log's heads, and never two histories of one log.

C2SP tlog-witness (`add-checkpoint`) with ML-DSA-44 cosignatures. Python's own library, `cryptography` and the verifier;
nothing of the gateway, because it exists for the day when the gateway's people are not to be believed.
"""

from __future__ import annotations
