from __future__ import annotations

import base64
import hmac
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from identify.minting import ALGORITHMS, NOW, RESOURCE, b64, key_for
from identify.proving import TOKEN, proof, thumbprint
from onbehalf.errors import DpopRefused, IdentifyError
from onbehalf.identify import DPOP_ALGORITHMS, DpopProof, Target, nonce_age, nonce_at, same_target, verify_dpop
from onbehalf.model import UnixTime

VECTORS = json.loads((Path(__file__).parent / "vectors" / "proofs.json").read_text())["rfc9449"]
HERE = Target(method="POST", address=same_target(RESOURCE))
WINDOW_S = 60


def check(text: str, *, token: str | None = TOKEN, target: Target = HERE, now: int = NOW) -> DpopProof:
    return verify_dpop(text, target=target, token=token, window_s=WINDOW_S, now=UnixTime(now))


def assert_refused(text: str, **asked: Any) -> None:
    with pytest.raises(DpopRefused):
        check(text, **asked)


@pytest.mark.parametrize("place", ["at_the_resource", "at_the_token_endpoint"])
def test_the_examples_of_rfc_9449_hold_for_their_own_request_only(place: str) -> None:
    vector = VECTORS[place]
    token = VECTORS["token"] if place == "at_the_resource" else None
    target = Target(method=vector["method"], address=same_target(vector["url"]))
    found = check(vector["proof"], token=token, target=target, now=vector["iat"])
    assert (found.thumbprint, found.id, found.nonce) == (VECTORS["jkt"], vector["jti"], "")
    assert_refused(vector["proof"], token="another", target=target, now=vector["iat"])
    assert_refused(vector["proof"], token=token, target=HERE, now=vector["iat"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_proof_tells_whose_key_it_is(algorithm: str) -> None:
    found = check(proof(algorithm=algorithm, jti="x", nonce="n"))
    assert found == DpopProof(thumbprint=thumbprint(algorithm), id="x", issued_at=NOW, nonce="n")


_GOOD = {name: proof(algorithm=name) for name in ("RS256", "ES256", "EdDSA")}


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(_GOOD)), st.integers(0, 10_000), st.integers(0, 255))
def test_a_good_proof_with_any_one_byte_changed_is_refused(algorithm: str, place: int, byte: int) -> None:
    good = _GOOD[algorithm]
    place %= len(good)
    changed = good[:place] + chr(byte) + good[place + 1 :]
    if changed != good:
        assert_refused(changed)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_what_is_no_proof_is_refused_and_nothing_else_is_raised(text: str) -> None:
    assert_refused(text)
    assert_refused(f"{text}.{text}.{text}")


@pytest.mark.parametrize(
    "typ", [None, "", "jwt", "at+jwt", "DPOP+JWT", "application/dpop+jwt", "dpop+jwt ", 1, ["dpop+jwt"]]
)
def test_a_jwt_of_another_kind_is_no_proof(typ: Any) -> None:
    assert_refused(proof(header={"typ": typ}))


@pytest.mark.parametrize("name", [None, "none", "HS256", "RS384", "ES384", "ES256K", "es256", 1, ["ES256"]])
def test_an_algorithm_that_is_not_on_the_list_is_refused_before_the_key_is_used(name: Any) -> None:
    assert_refused(proof(header={"alg": name}))


@pytest.mark.parametrize("claimed", ["RS256", "EdDSA", "PS256"])
def test_an_algorithm_of_another_kind_of_key_is_refused(claimed: str) -> None:
    assert_refused(proof(header={"alg": claimed}))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_key_in_the_proof_is_refused(algorithm: str) -> None:
    assert_refused(proof(algorithm=algorithm, header={"jwk": key_for(algorithm, "client").as_dict(private=True)}))


@pytest.mark.parametrize(
    "jwk", [None, {}, [], "x", 1, {"kty": "oct", "k": "AAAA"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]
)
def test_a_key_that_is_none_is_refused(jwk: Any) -> None:
    assert_refused(proof(header={"jwk": jwk}))


def test_a_symmetric_key_in_the_proof_is_refused_although_it_would_fit() -> None:
    secret = b"k" * 32
    head = {"typ": "dpop+jwt", "alg": "HS256", "jwk": {"kty": "oct", "k": b64(secret)}}
    body = {"jti": "x", "htm": "POST", "htu": RESOURCE, "iat": int(NOW)}
    parts = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(body).encode())}"
    assert_refused(f"{parts}.{b64(hmac.digest(secret, parts.encode(), 'sha256'))}", token=None)


@pytest.mark.parametrize("member", ["crit", "b64", "jku", "x5u", "x5c"])
def test_a_header_member_that_changes_the_meaning_is_refused(member: str) -> None:
    assert_refused(proof(header={member: ["exp"]}))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_proof_that_another_key_signed_than_it_shows_is_refused(algorithm: str) -> None:
    thief = key_for(algorithm, "thief")
    assert_refused(
        proof(algorithm=algorithm, key=thief, header={"jwk": key_for(algorithm, "client").as_dict(private=False)})
    )


@pytest.mark.parametrize("name", ["jti", "htm", "htu", "iat", "ath"])
@pytest.mark.parametrize("value", [None, "", 1, [], True])
def test_a_claim_that_is_missing_or_has_another_shape_is_refused(name: str, value: Any) -> None:
    assert_refused(proof(**{name: value}))


@pytest.mark.parametrize("method", ["GET", "DELETE", "post", "Post", "POST ", " POST"])
def test_a_proof_for_another_method_is_refused(method: str) -> None:
    assert_refused(proof(htm=method))
    assert_refused(proof(), target=Target(method=method, address=HERE.address))


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway.example/mcp",
        "https://gateway.example",
        "https://gateway.example/mcp/",
        "https://gateway.example/MCP",
        "https://gateway.example:8443/mcp",
        "https://gateway.example.evil/mcp",
        "https://gateway.example@evil/mcp",
        "https://user@gateway.example/mcp",
        "https://gateway.example/mcp%2F",
        "https://gateway.example/x/../../mcp/.",
        "//gateway.example/mcp",
        "/mcp",
        "gateway.example/mcp",
        "https://gateway.example:/mcp",
        "https://gateway.example/%6",
        "https://gateway.example/mcp\n",
        " https://gateway.example/mcp",
        "https://gateway.example\\@evil/mcp",
        "https:///mcp",
        "https://gateway.example:99999/mcp",
        "https://gateway.example./mcp",
    ],
)
def test_a_proof_for_another_address_is_refused(url: str) -> None:
    assert_refused(proof(htu=url))


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://GATEWAY.example/mcp",
        "https://gateway.example:443/mcp",
        "https://gateway.example/%6dcp",
        "https://gateway.example/a/../mcp",
        "https://gateway.example/./mcp",
        "https://gateway.example/mcp?x=1",
        "https://gateway.example/mcp#x",
        "https://gateway.example/%6Dcp",
    ],
)
def test_another_spelling_of_the_address_is_the_same(url: str) -> None:
    assert check(proof(htu=url)).thumbprint == thumbprint()


@pytest.mark.parametrize(
    ("seconds", "good"), [(0, True), (60, True), (-60, True), (61, False), (-61, False), (10**9, False)]
)
def test_pre_generation_a_proof_is_taken_near_the_time_it_names_only(seconds: int, good: bool) -> None:
    text = proof(iat=int(NOW) + seconds)
    if good:
        check(text)
    else:
        assert_refused(text)


def test_a_proof_is_bound_to_one_access_token() -> None:
    assert_refused(proof(token="another"))
    assert_refused(proof(token=None))
    assert_refused(proof(ath=proof()))
    assert check(proof(token=None), token=None).thumbprint == thumbprint()


def test_a_proof_over_the_size_limit_is_refused_before_it_is_read() -> None:
    assert check(proof(jti="x" * 255))
    assert_refused(proof(pad="x" * 4000))
    assert_refused("x" * 5000)


def test_the_algorithms_are_asymmetric_and_what_keys_are_taken_for() -> None:
    assert set(DPOP_ALGORITHMS) == set(ALGORITHMS)


# --- addresses -----------------------------------------------------------------------------

_SEGMENT = st.text(st.sampled_from("abcXYZ019-._~!$&'()*+,;=:@"), max_size=6)
_URLS = st.builds(
    lambda scheme, host, port, path: f"{scheme}://{host}{port}/{'/'.join(path)}",
    st.sampled_from(["http", "https"]),
    st.sampled_from(["a.example", "127.0.0.1", "[::1]", "xn--bcher-kva.example"]),
    st.sampled_from(["", ":1", ":8443", ":65535"]),
    st.lists(_SEGMENT, max_size=4),
)


@given(_URLS)
@example("https://a.example/..")
def test_one_spelling_stays_as_it_is(url: str) -> None:
    once = same_target(url)
    assert once
    assert same_target(once) == once


@given(_URLS, st.randoms(use_true_random=False))
def test_what_rfc_3986_calls_equivalent_is_the_same_address(url: str, chance: Any) -> None:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if ":" not in host.rpartition("]")[2]:
        host += f":{443 if scheme == 'https' else 80}"
    spelled = "".join(
        chance.choice([char, f"%{ord(char):02x}", f"%{ord(char):02X}"]) if char.isalnum() or char in "-_~" else char
        for char in path
    )
    detour, rest = chance.choice(["", "./", "x/../"]), chance.choice(["", "?q", "#f"])
    other = f"{scheme.upper()}://{host.upper()}{slash}{detour}{spelled}{rest}"
    assert same_target(other) == same_target(url)


@given(_URLS, _URLS)
def test_what_is_not_equivalent_is_another_address(one: str, other: str) -> None:
    def bare(url: str) -> tuple[str, ...]:
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        return scheme, host, path

    dotted = any(segment in (".", "..") for url in (one, other) for segment in url.split("/"))
    if bare(one) != bare(other) and not dotted:
        assert same_target(one) != same_target(other)


@given(st.text(max_size=60))
def test_any_text_has_an_address_or_none_and_nothing_is_raised(text: str) -> None:
    found = same_target(text)
    assert found == "" or same_target(found) == found


@pytest.mark.parametrize("reserved", ["/", "?", "#", "%", "&", "+"])
def test_an_escape_that_means_something_stays(reserved: str) -> None:
    assert same_target(f"https://a.example/x{quote(reserved, safe='')}y") != same_target(
        f"https://a.example/x{reserved}y"
    )


# --- nonces --------------------------------------------------------------------------------

KEY = b"k" * 32


@given(st.integers(0, 2**33), st.integers(0, 300))
def test_a_nonce_tells_its_age_to_whoever_has_the_key(at: int, later: int) -> None:
    nonce = nonce_at(UnixTime(at), key=KEY)
    assert nonce_age(nonce, key=KEY, now=UnixTime(at + later)) == later
    assert nonce_age(nonce, key=KEY, now=UnixTime(at + 301 + later)) is None
    assert nonce_age(nonce, key=b"x" * 32, now=UnixTime(at)) is None


@given(st.integers(0, 29), st.characters(codec="utf-8"))
def test_a_nonce_with_any_one_character_changed_is_none(place: int, char: str) -> None:
    good = nonce_at(NOW, key=KEY)
    changed = good[:place] + char + good[place + 1 :]
    assert (nonce_age(changed, key=KEY, now=NOW) is None) == (changed != good)


@given(st.text(max_size=40))
def test_what_is_no_nonce_is_none(text: str) -> None:
    assert nonce_age(text, key=KEY, now=NOW) is None


def test_a_nonce_from_the_time_to_come_is_none_but_for_clocks_that_disagree() -> None:
    nonce = nonce_at(UnixTime(NOW + 5), key=KEY)
    assert nonce_age(nonce, key=KEY, now=NOW) == 0
    assert nonce_age(nonce, key=KEY, now=UnixTime(NOW - 1)) is None


def test_a_nonce_has_rfc_9449s_characters_and_one_spelling() -> None:
    nonce = nonce_at(NOW, key=KEY)
    assert base64.urlsafe_b64decode(nonce + "==")
    assert nonce_age(nonce.replace("-", "+").replace("_", "/") + "=", key=KEY, now=NOW) is None
    assert issubclass(DpopRefused, IdentifyError)
