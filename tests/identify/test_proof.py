from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identify.minting import NOW, RESOURCE, all_keys, claims, mint, prove
from identify.minting import RULE as BASE
from identify.proving import certificate, certificate_hash, escaped_pem, rfc9440, thumbprint
from onbehalf.config import IssuerSettings
from onbehalf.errors import DpopMissing, ProofMissing
from onbehalf.identify import certificate_thumbprint, peek, verify
from onbehalf.identify.certificate import Spelling
from onbehalf.identify.proof import binding
from onbehalf.model import Caller, Presented

VECTOR = json.loads((Path(__file__).parent / "vectors" / "proofs.json").read_text())["rfc8705"]
JKT = {"jkt": thumbprint()}
X5T = {"x5t#S256": certificate_hash(certificate())}


def bound(token: str, demand: Any = "optional") -> Caller:
    """The caller, as for one who sees the proof afterwards."""
    rule = IssuerSettings(issuer=BASE.issuer, tenant="acme", proof=demand)
    peeked = peek(Presented(token=token))
    return verify(peeked, rule=rule, key=all_keys()[peeked.key_id], audience=RESOURCE, now=NOW, bound=True)


@pytest.mark.parametrize(("cnf", "kind"), [(None, "bearer"), (JKT, "dpop"), (X5T, "mtls")])
def test_the_evidence_says_what_must_be_shown_with_the_token(cnf: Any, kind: str) -> None:
    evidence = bound(mint(claims(cnf=cnf))).evidence
    assert evidence.proof == kind
    assert evidence.thumbprint == ("" if cnf is None else next(iter(cnf.values())))


@pytest.mark.parametrize(
    "cnf",
    [
        {},
        None,
        "x",
        0,
        [],
        {**JKT, **X5T},
        {**JKT, "kid": "x"},
        {"jwk": {}},
        {"kid": "x"},
        {"x5t": "x"},
        {"JKT": JKT["jkt"]},
        {"jkt": ""},
        {"jkt": None},
        {"jkt": JKT["jkt"] + "="},
        {"jkt": JKT["jkt"][:-1]},
        {"jkt": JKT["jkt"][:-1] + "B"},
        {"x5t#S256": X5T["x5t#S256"][:-1]},
        {"jkt": [JKT["jkt"]]},
        {"x5t#s256": X5T["x5t#S256"]},
    ],
)  # fmt: skip
def test_a_token_that_is_bound_in_an_unknown_way_or_twice_proves_nobody(cnf: Any) -> None:
    with pytest.raises(ProofMissing):
        binding({"cnf": cnf})
    with pytest.raises(ProofMissing):
        bound(mint({**claims(), "cnf": cnf}))


@pytest.mark.parametrize("cnf", [JKT, X5T])
def test_whoever_does_not_say_that_they_see_the_proof_gets_no_caller(cnf: Any) -> None:
    with pytest.raises(ProofMissing):
        prove(mint(claims(cnf=cnf)))


@pytest.mark.parametrize(
    ("demand", "taken"),
    [
        ("optional", {"bearer", "dpop", "mtls"}),
        ("required", {"dpop", "mtls"}),
        ("dpop", {"dpop"}),
        ("mtls", {"mtls"}),
    ],
)
def test_an_issuer_whose_tokens_must_be_bound_has_its_other_tokens_refused(demand: str, taken: set[str]) -> None:
    for cnf, kind in ((None, "bearer"), (JKT, "dpop"), (X5T, "mtls")):
        token = mint(claims(cnf=cnf))
        if kind in taken:
            assert bound(token, demand).evidence.proof == kind
        else:
            with pytest.raises(ProofMissing) as refused:
                bound(token, demand)
            assert isinstance(refused.value, DpopMissing) == (demand != "mtls")


# --- certificates --------------------------------------------------------------------------


def test_the_example_of_rfc_8705_has_its_thumbprint() -> None:
    der = base64.b64decode(VECTOR["certificate"])
    assert certificate_thumbprint(rfc9440(der), spelling="rfc9440") == VECTOR["thumbprint"]
    assert certificate_thumbprint(escaped_pem(der), spelling="pem") == VECTOR["thumbprint"]


def test_both_spellings_name_one_certificate() -> None:
    der = certificate()
    assert certificate_thumbprint(rfc9440(der), spelling="rfc9440") == certificate_hash(der)
    assert certificate_thumbprint(escaped_pem(der), spelling="pem") == certificate_hash(der)
    assert certificate_hash(certificate("other")) != certificate_hash(der)


DER = certificate()
PEM = escaped_pem(DER)
NONE: list[tuple[str, Spelling]] = [
    ("", "rfc9440"), ("::", "rfc9440"), (base64.b64encode(DER).decode(), "rfc9440"), (PEM, "rfc9440"),
    (f"{rfc9440(DER)}, {rfc9440(DER)}", "rfc9440"), (rfc9440(DER) + ";a=1", "rfc9440"),
    (rfc9440(DER + b"x"), "rfc9440"),
    (rfc9440(DER[:-1]), "rfc9440"), (rfc9440(b"A" * 7000), "rfc9440"), (rfc9440(b"A" * 100), "rfc9440"),
    (rfc9440(DER), "pem"), ("", "pem"), (PEM * 2, "pem"), ("x" + PEM, "pem"), (PEM[:-9], "pem"), ("\N{SNOWMAN}", "pem"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "spelling"), NONE)
def test_what_is_not_exactly_one_certificate_is_none(header: str, spelling: Spelling) -> None:
    with pytest.raises(ProofMissing):
        certificate_thumbprint(header, spelling=spelling)


@given(st.text(max_size=100), st.sampled_from(["rfc9440", "pem"]))
def test_any_other_text_is_no_certificate(text: str, spelling: Spelling) -> None:
    with pytest.raises(ProofMissing):
        certificate_thumbprint(text, spelling=spelling)


@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_a_certificate_with_any_one_byte_changed_is_another_or_none(place: int, change: int) -> None:
    changed = DER[:place] + bytes([DER[place] ^ change]) + DER[place + 1 :]
    try:
        found = certificate_thumbprint(rfc9440(changed), spelling="rfc9440")
    except ProofMissing:
        return
    assert found != certificate_hash(DER)
