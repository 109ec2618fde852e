"""The one spelling of bytes in tokens, against published vectors."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from onbehalf.base64url import base64url, s256


def test_the_published_examples() -> None:
    assert base64url(bytes([3, 236, 255, 224, 193])) == "A-z_4ME"  # RFC 7515 appendix C
    verifier = b"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert s256(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636 appendix B
    assert s256(b'{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}') == (
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # RFC 8037 appendix A.3
    )


@given(st.binary(max_size=300))
def test_it_is_the_standard_one_without_padding(data: bytes) -> None:
    spelled = base64url(data)
    assert "=" not in spelled
    assert base64.urlsafe_b64decode(spelled + "=" * (-len(spelled) % 4)) == data
