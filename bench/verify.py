"""A new token proven, against the bare check of its signature with the same key: CPU time, medians of rounds in turns.

    bench/verify.py [--rounds 40] [--tokens 250]

Each token is seen for the first time; the issuer's keys are at hand. `library` is what a program without a gateway
would call for the signature alone: joserfc's check of the compact form, with none of the claims looked at. `bare` is
cryptography's own `verify` of bytes that are already decoded: no token could be proven for that. The goal is 1.3 times
the library. A token that is known is not checked again. It takes half a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from joserfc import jws

from identify import minting
from onbehalf.config import IssuerSettings
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.identify import PublicKey
from onbehalf.model import Json, Presented, UnixTime

NOW = minting.NOW
RULE = IssuerSettings(issuer=minting.ISSUER, tenant="acme", algorithms=minting.ALGORITHMS)
GOAL = 1.3


class Published:
    """Keys that are at hand."""

    issuer = minting.ISSUER

    async def keys(self, rule: IssuerSettings) -> Mapping[str, PublicKey]:
        return minting.all_keys()

    def refuse(self, claims: Mapping[str, Json]) -> None:
        """None is over."""


def tokens(algorithm: str, count: int) -> list[str]:
    """Of people that differ, as an issuer would give them: some claims more than we ask for."""
    more = {"jti": "", "groups": ["staff", "sales", "emea"], "email": "a.person@acme.example", "auth_time": NOW - 60}
    return [
        minting.mint(
            minting.claims(**{**more, "jti": f"{number:032x}", "sub": f"person-{number}"}), algorithm=algorithm
        )
        for number in range(count)
    ]


def bare(algorithm: str, texts: list[str]) -> Callable[[], None]:
    """The check of signatures alone, as the library does it."""
    key: Any = minting.all_keys()[algorithm].material.public_key
    taken = [(text.rpartition(".")[0].encode(), minting.unb64(text.rpartition(".")[2].encode())) for text in texts]
    sha, pss = hashes.SHA256(), padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256.digest_size)

    def check() -> None:
        for said, signature in taken:
            if algorithm == "EdDSA":
                key.verify(signature, said)
            elif algorithm == "ES256":
                r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                key.verify(utils.encode_dss_signature(r, s), said, ec.ECDSA(sha))
            else:
                key.verify(signature, said, pss if algorithm == "PS256" else padding.PKCS1v15(), sha)

    return check


def library(algorithm: str, texts: list[str]) -> Callable[[], None]:
    """The check of whole tokens' signatures."""
    key: Any = minting.all_keys()[algorithm].material

    def check() -> None:
        for text in texts:
            jws.deserialize_compact(text, key, algorithms=[algorithm])

    return check


async def spent(what: Callable[[], Any]) -> float:
    begun = time.process_time()
    made = what()
    if made is not None:
        await made
    return time.process_time() - begun


async def measure(algorithm: str, *, rounds: int, count: int) -> dict[str, float]:
    """µs for one token: bare, by the library, proven anew, known. Medians of the rounds."""
    callers = IssuerCallers([RULE], resource=minting.RESOURCE, own=Published())
    await callers.warm()
    presented = [Presented(token=text) for text in tokens(algorithm, count)]
    texts = [each.token for each in presented]
    checks = {"bare": bare(algorithm, texts), "library": library(algorithm, texts)}

    async def prove() -> None:
        for each in presented:
            await callers.prove(each, now=UnixTime(NOW))

    took: dict[str, list[float]] = {"bare": [], "library": [], "new": [], "known": []}
    for _ in range(rounds):
        callers.revoke_all()
        for name, what in {**checks, "new": prove, "known": prove}.items():
            took[name].append(await spent(what) / count * 1e6)
    await callers.aclose()
    return {name: statistics.median(each) for name, each in took.items()}


async def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--rounds", type=int, default=40)
    reader.add_argument("--tokens", type=int, default=250)
    asked = reader.parse_args()
    worst = 0.0
    for algorithm in ("ES256", "RS256", "PS256", "EdDSA"):
        took = await measure(algorithm, rounds=asked.rounds, count=asked.tokens)
        worst = max(worst, took["new"] / took["library"])
        sys.stdout.write(
            f"{algorithm}: bare {took['bare']:.1f} µs, library {took['library']:.1f} µs, "
            f"proven anew {took['new']:.1f} µs "
            f"({took['new'] / took['library']:.2f} and {took['new'] / took['bare']:.2f} times), "
            f"known {took['known']:.2f} µs\n"
        )
    return 0 if worst <= GOAL else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
