"""Runs published test data against both of our readers: the gateway's and the verifier's.

    PYTHONPATH=tests python -m published FOLDER

FOLDER has clones of transparency-dev/merkle, C2SP/wycheproof and C2SP/CCTV under these names (`merkle`, `wycheproof`,
`CCTV`). The data is theirs and is not kept here; what came of it stands in docs/published-data.md. For each set it
prints how many cases there are and each in which a reader says other than the set does. Exit code 1 where there is one
that is not listed with its reason in `KNOWN`, 2 where there is no data.
"""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from onbehalf.explain import tree
from onbehalf.verifier import cosign, ed25519, merkle

__all__ = ["KNOWN", "Case", "consistencies", "deviations", "edges", "inclusions", "ml_dsa", "signatures"]

Reader: TypeAlias = Callable[..., bool]

KNOWN: Mapping[str, str] = {
    "consistency: sizes are equal (one) and proof is empty": "its roots are no hashes: they have 12 bytes, not 32",
}
"""What our readers say other than a set does, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case of a set: what is read, and whether it is to be taken."""

    name: str
    good: bool
    given: Mapping[str, Any]


def inclusions(folder: Path) -> Iterator[Case]:
    """transparency-dev/merkle, testdata/inclusion."""
    for each in _documents(folder / "testdata" / "inclusion"):
        given = {
            "leaf": _bytes(each["leafHash"]), "index": each["leafIdx"], "size": each["treeSize"],
            "path": _path(each), "root": _bytes(each["root"]),
        }  # fmt: skip
        yield Case(name=f"inclusion: {each['desc']}", good=not each["wantErr"], given=given)


def consistencies(folder: Path) -> Iterator[Case]:
    """transparency-dev/merkle, testdata/consistency."""
    for each in _documents(folder / "testdata" / "consistency"):
        given = {
            "old": each["size1"], "old_root": _bytes(each["root1"]), "size": each["size2"],
            "root": _bytes(each["root2"]), "path": _path(each),
        }  # fmt: skip
        yield Case(name=f"consistency: {each['desc']}", good=not each["wantErr"], given=given)


def signatures(folder: Path) -> Iterator[Case]:
    """C2SP/wycheproof, Ed25519."""
    return _wycheproof(folder / "testvectors_v1" / "ed25519_test.json", lambda group: group["publicKey"]["pk"])


def ml_dsa(folder: Path) -> Iterator[Case]:
    """C2SP/wycheproof, ML-DSA-44; those with a context are of another use than C2SP's, which has none."""
    found = _wycheproof(folder / "testvectors_v1" / "mldsa_44_verify_test.json", lambda group: group["publicKey"])
    return (each for each in found if not each.given["context"])


def edges(folder: Path) -> Iterator[Case]:
    """C2SP/CCTV, Ed25519: points that are no common key's. What a reader says of them the set leaves open."""
    for each in json.loads((folder / "ed25519" / "ed25519vectors.json").read_text(encoding="utf-8")):
        given = {
            "key": bytes.fromhex(each["key"]), "signature": bytes.fromhex(each["sig"]), "said": each["msg"].encode(),
            "context": b"",
        }  # fmt: skip
        yield Case(name=f"edge: {' '.join(each['flags'] or ['none'])}", good=False, given=given)


def deviations(cases: Iterator[Case], readers: Mapping[str, Reader]) -> tuple[int, Counter[str]]:
    """How many cases there are, and by reader and name those in which it says other than the set."""
    count, found = 0, Counter[str]()
    for count, case in enumerate(cases, start=1):  # noqa: B007  # the last one counts
        for name, reader in readers.items():
            if reader(**case.given) != case.good:
                found[f"{name}: {case.name}"] += 1
    return count, found


def by_gateway(key: bytes, signature: bytes, said: bytes, context: bytes) -> bool:
    """Ed25519 as heads, cosignatures and call tokens are checked by the gateway and backends (libsodium)."""
    try:
        VerifyKey(key).verify(said, signature)
    except (CryptoError, ValueError):
        return False
    return True


def by_verifier(key: bytes, signature: bytes, said: bytes, context: bytes) -> bool:
    """Ed25519 as the verifier checks it (OpenSSL, and the key looked at before)."""
    try:
        ed25519.verify(key, signature, said)
    except (InvalidSignature, ValueError):
        return False
    return True


def _lattice(key: bytes, signature: bytes, said: bytes, context: bytes) -> bool:
    try:
        cosign._verify_ml_dsa(key, signature, said)
    except (InvalidSignature, ValueError):
        return False
    return True


INCLUSION: Mapping[str, Reader] = {"gateway": tree.verify_inclusion, "verifier": merkle.included}
CONSISTENCY: Mapping[str, Reader] = {"gateway": tree.verify_consistency, "verifier": merkle.consistent}
ED25519: Mapping[str, Reader] = {"gateway": by_gateway, "verifier": by_verifier}
ML_DSA: Mapping[str, Reader] = {"both": _lattice}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0], "merkle").is_dir():
        sys.stderr.write(__doc__ or "")
        return 2
    folder = Path(arguments[0])
    sets = (
        ("inclusion proofs", inclusions(folder / "merkle"), INCLUSION),
        ("consistency proofs", consistencies(folder / "merkle"), CONSISTENCY),
        ("Ed25519", signatures(folder / "wycheproof"), ED25519),
        ("ML-DSA-44", ml_dsa(folder / "wycheproof"), ML_DSA),
        ("Ed25519, edges (what is taken)", edges(folder / "CCTV"), ED25519),
    )
    unknown = 0
    for title, cases, readers in sets:
        count, found = deviations(cases, readers)
        sys.stdout.write(f"{title}: {count} cases, {sum(found.values())} told otherwise\n")
        for name, times in sorted(found.items()):
            case = name.partition(": ")[2]
            reason = "left open by the set" if case.startswith("edge: ") else KNOWN.get(case, "")
            unknown += not reason
            sys.stdout.write(f"  {times} x {name}: {reason or 'NOT KNOWN'}\n")
    return 1 if unknown else 0


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def _wycheproof(path: Path, key: Callable[[dict[str, Any]], str]) -> Iterator[Case]:
    for group in json.loads(path.read_text(encoding="utf-8"))["testGroups"]:
        for each in group["tests"]:
            given = {
                "key": bytes.fromhex(key(group)), "signature": bytes.fromhex(each["sig"]),
                "said": bytes.fromhex(each["msg"]), "context": bytes.fromhex(each.get("ctx", "")),
            }  # fmt: skip
            yield Case(name=f"{each['tcId']} {each['comment']}", good=each["result"] == "valid", given=given)


def _path(each: Mapping[str, Any]) -> list[bytes]:
    return [_bytes(step) for step in each["proof"] or ()]


def _bytes(text: str | None) -> bytes:
    return base64.b64decode(text or "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
