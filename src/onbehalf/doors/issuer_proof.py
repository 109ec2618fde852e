"""Sees that whoever shows a bound token holds its key: every request anew, also where the token was proven before.

The rules of a proof are in `identify`; this door holds what they need of the world: which proofs were used, the key of
the nonces, and what was found for the request under way, so that one that asks twice is not its own replay. Must not
find out whose token it is (issuer_http.py), nor read a header.

Trust: a certificate is believed of the connection, or of whoever ends TLS where the door that read it saw the secret
they share; a proof by DPoP is believed by its signature alone.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

from onbehalf.config_proof import DpopSettings
from onbehalf.errors import DpopMissing, DpopRefused, NonceNeeded, ProofMissing, TokenMalformed
from onbehalf.identify import (
    NONCE_RENEWED_S,
    DpopProof,
    Spelling,
    Target,
    certificate_thumbprint,
    nonce_age,
    nonce_at,
    same_target,
    verify_dpop,
)
from onbehalf.model import Caller, Digest, Presented, Shown, UnixTime

__all__ = ["DpopProofs", "Proofs", "UsedProofs"]


class UsedProofs(Protocol):
    """Remembers proofs for as long as they could be taken."""

    async def add(self, key: str, id_: str, *, now: UnixTime, until: UnixTime) -> bool:
        """Whether this is the first of it. Raises ProofsUnavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DpopProofs:
    """Takes each DPoP proof once. `key` is for nonces: gateways that share it take each other's."""

    settings: DpopSettings
    used: UsedProofs
    key: bytes = field(repr=False)

    def held(
        self, text: str, *, target: Target, token: str | None, thumbprint: str = "", now: UnixTime
    ) -> tuple[DpopProof, str]:
        """The proof, if it holds and is by the key of `thumbprint` ("" for any); and a nonce for the next one where the
        client's is getting old, else "". It counts only once it is `take`n. Raises DpopRefused, NonceNeeded.
        """
        window_s = self.settings.window_seconds
        proof = verify_dpop(text, target=target, token=token, window_s=window_s, now=now)
        if thumbprint and not hmac.compare_digest(proof.thumbprint, thumbprint):
            raise DpopRefused(
                "the DPoP proof is of another key than the token is bound to", hint="use the key the token was got with"
            )
        return proof, self._nonce(proof, now)

    async def take(self, proof: DpopProof, now: UnixTime) -> None:
        """Raise DpopRefused unless the proof was never taken before, ProofsUnavailable where nobody can know."""
        until = UnixTime(proof.issued_at + self.settings.window_seconds + 1)
        if not await self.used.add(proof.thumbprint, proof.id, now=now, until=until):
            raise DpopRefused("the DPoP proof was used before", hint="make one with its own `jti` for each request")

    def _nonce(self, proof: DpopProof, now: UnixTime) -> str:
        """What to offer with the answer. Raises NonceNeeded."""
        if self.settings.nonce == "none":
            return ""
        age = nonce_age(proof.nonce, key=self.key, now=now) if proof.nonce else None
        if age is None:
            raise NonceNeeded(
                "the DPoP proof has no nonce of this gateway's, or an old one", nonce=nonce_at(now, key=self.key),
                hint="make the proof again with the nonce in `DPoP-Nonce` (RFC 9449 section 9)",
            )  # fmt: skip
        return nonce_at(now, key=self.key) if age >= NONCE_RENEWED_S else ""


class Proofs:
    """What must be shown besides a token at the resource. `resource` is this gateway's own address, whatever Host says;
    `certificates` is how they are spelled, None where none are read."""

    def __init__(self, dpop: DpopProofs, *, resource: str, certificates: Spelling | None = None) -> None:
        self._dpop = dpop
        self._address = same_target(resource)
        self._certificates = certificates
        self._passed: WeakKeyDictionary[Shown, tuple[Digest, str]] = WeakKeyDictionary()

    async def require(self, caller: Caller, presented: Presented, *, now: UnixTime) -> None:
        """Raise an IdentifyError unless what the caller's token is bound to was shown, and it was shown as such.

        A bound token under the other scheme is refused (RFC 9449 section 7.2), and so is a bearer token under DPoP.
        """
        evidence, shown = caller.evidence, presented.shown
        under_dpop = shown is not None and shown.dpop
        if evidence.proof != "dpop" and under_dpop:
            raise TokenMalformed(
                "the token came under the scheme DPoP and is bound to no key", hint="RFC 9449 section 7"
            )
        if evidence.proof == "dpop":
            if shown is None or not under_dpop:
                raise DpopMissing(
                    "the token is bound to a key and came as a bearer token", hint="send it under DPoP, with a proof"
                )
            await self._require_key(shown, presented.token, caller, now)
        elif evidence.proof == "mtls":
            self._require_certificate(shown, evidence.thumbprint)

    def offered(self, shown: Shown) -> str:
        """A new nonce for the client of a request whose proof was taken; "" where its own is young."""
        return self._passed.get(shown, (Digest(""), ""))[1]

    async def _require_key(self, shown: Shown, token: str, caller: Caller, now: UnixTime) -> None:
        evidence = caller.evidence
        if self._passed.get(shown, ("", ""))[0] == evidence.token:
            return  # this very request, which asks who calls more than once
        target = Target(method=shown.method, address=self._address)
        proof, offer = self._dpop.held(shown.proof, target=target, token=token, thumbprint=evidence.thumbprint, now=now)
        await self._dpop.take(proof, now)
        self._passed[shown] = (evidence.token, offer)

    def _require_certificate(self, shown: Shown | None, thumbprint: str) -> None:
        if self._certificates is None or shown is None or not shown.certificate:
            raise ProofMissing(
                "the token is bound to a certificate, and the client showed none",
                hint="connect with the certificate that the token was got with (RFC 8705 section 3)",
            )
        found = certificate_thumbprint(shown.certificate, spelling=self._certificates)
        if not hmac.compare_digest(found, thumbprint):
            raise ProofMissing(
                "the client's certificate is another than the token is bound to",
                hint="connect with the certificate that the token was got with (RFC 8705 section 3)",
            )
