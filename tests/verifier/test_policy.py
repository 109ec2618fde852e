"""A policy file is read alike by two readers that were written apart, and refused where the specification says so.

C2SP tlog-policy publishes no vectors; its example and each of its rules are here.
"""

from __future__ import annotations

import base64
import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from onbehalf.errors import ConfigInvalid
from onbehalf.explain import quorum
from onbehalf.verifier.policy import read_policy
from onbehalf.verifier.refused import Unusable


def vkey(name: str, kind: int = 4, seed: str = "") -> str:
    """A vkey whose key is made of its name; ML-DSA-44 keys are any 1,312 bytes here."""
    private = hashlib.sha256((seed or name).encode()).digest()
    public = bytes(SigningKey(private).verify_key) if kind != 6 else (private * 41)
    key = bytes([kind]) + public
    id_ = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex()
    return f"{name}+{id_}+{base64.b64encode(key).decode()}"


LOG = f"log {vkey('log.example', 1)}\n"
X1, X2, X3, Y1, Y2, Y3 = (f"witness {name} {vkey(name)}\n" for name in ("X1", "X2", "X3", "Y1", "Y2", "Y3"))
EXAMPLE = f"""{LOG}
{X1}{X2}{X3}group X-witnesses 2 X1 X2 X3

{Y1}{Y2}{Y3}group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def both(text: str | bytes) -> tuple[quorum.Policy, object]:
    data = text.encode() if isinstance(text, str) else text
    return quorum.parse(data), read_policy(data)


def test_the_example_of_the_specification_asks_for_two_of_x_and_one_of_y() -> None:
    ours, theirs = quorum.parse(EXAMPLE.encode()), read_policy(EXAMPLE.encode())
    names = ("X1", "X2", "X3", "Y1", "Y2", "Y3")
    for count in range(7):
        for signed in itertools.combinations(names, count):
            x, y = (sum(each.startswith(letter) for each in signed) for letter in "XY")
            assert ours.met(set(signed)) == (x >= 2 and y >= 1)
            assert theirs.enough({each.encode() for each in signed}) == (x >= 2 and y >= 1)
    assert ours.logs == (vkey("log.example", 1),)
    assert [each.name for each in theirs.logs] == ["log.example"]


GOOD = {
    "no witness": "quorum none\n",
    "one": f"{X1}quorum X1\n",
    "url": f"log {vkey('l', 6)} https://l.example/\nwitness a {vkey('w', 6)} https://w.example/\nquorum a\n",
    "blanks": f" \t{X1[:-1]} \t\n\t \n  # a comment\n#\n\tquorum\tX1 \n",
    "quorum before a group": f"{X1}{Y1}quorum X1\ngroup g any X1 Y1\n",
    "octets": f"{X1}".encode().replace(b"X1 ", b"\xff\x80\xc3\xa9 ", 1) + b"quorum \xff\x80\xc3\xa9\n# \xe2\x84\xaa\n",
    "a group called all": f"{X1}{Y1}group all all X1 Y1\nquorum all\n",
    "no log": f"{X1}{Y1}group 1 1 X1 Y1\nquorum 1\n",
    "32 of each": "".join(
        f"log {vkey(f'l{n}', 1)}\nwitness w{n} {vkey(f'w{n}')}\ngroup g{n} any w{n}\n" for n in range(32)
    )
    + "quorum g31\n",
}
BAD = {
    "empty": "",
    "no quorum": X1,
    "two quorums": f"{X1}quorum X1\nquorum none\n",
    "quorum twice": "quorum none\n" * 2,
    "unknown quorum": f"{X1}quorum X2\n",
    "quorum too early": f"quorum X1\n{X1}",
    "member too early": f"{X1}group g any X1 Y1\n{Y1}quorum g\n",
    "itself": f"{X1}group g any X1 g\nquorum g\n",
    "none as a member": f"{X1}group g any X1 none\nquorum g\n",
    "none as a name": f"witness none {vkey('X1')}\nquorum none\n",
    "two of a name": f"{X1}witness X1 {vkey('X2')}\nquorum X1\n",
    "a group of that name": f"{X1}group X1 any X1\nquorum X1\n",
    "a member twice": f"{X1}group g 1 X1 X1\nquorum g\n",
    "in two groups": f"{X1}{Y1}group g any X1\ngroup h all X1 Y1\nquorum h\n",
    "a key twice": f"{X1}witness other {vkey('other', seed='X1')}\nquorum X1\n",
    "a log's key twice": f"{LOG}log {vkey('other', 1, seed='log.example')}\nquorum none\n",
    "no members": f"{X1}group g all\nquorum g\n",
    "too many": f"{X1}group g 2 X1\nquorum g\n",
    "zero": f"{X1}group g 0 X1\nquorum g\n",
    "minus": f"{X1}group g -1 X1\nquorum g\n",
    "leading zero": f"{X1}group g 01 X1\nquorum g\n",
    "plus": f"{X1}group g +1 X1\nquorum g\n",
    "no number": f"{X1}group g most X1\nquorum g\n",
    "huge": f"{X1}group g {'9' * 5000} X1\nquorum g\n",
    "a log's key as a witness": f"witness X1 {vkey('X1', 1)}\nquorum X1\n",
    "a witness's key as a log": f"log {vkey('X1', 4)}\nquorum none\n",
    "another type": f"witness X1 {vkey('X1', 2)}\nquorum X1\n",
    "no vkey": "witness X1 abc\nquorum X1\n",
    "a letter lost": f"{X1[:60]}{X1[61:]}quorum X1\n",
    "too many words": f"{X1[:-1]} https://a https://b\nquorum X1\n",
    "unknown line": "witnesses X1\nquorum none\n",
    "quorum of two": f"{X1}{Y1}quorum X1 Y1\n",
    "cut off": f"{X1}quorum X1",
    "carriage return": f"{X1}quorum X1\r\n",
    "nul": "quorum none\n\0",
    "delete": "# \x7f\nquorum none\n",
    "form feed": "quorum\fnone\n",
    "65 witnesses": "".join(f"witness w{n} {vkey(f'w{n}')}\n" for n in range(65)) + "quorum none\n",
    "long": "#" * 300_000 + "\nquorum none\n",
    "capitals": f"{X1}Quorum X1\n",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_what_the_specification_allows_is_read(text: str | bytes) -> None:
    both(text)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_what_it_rules_out_is_refused_by_both(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        quorum.parse(text.encode("latin-1"))
    with pytest.raises(Unusable):
        read_policy(text.encode("latin-1"))


_WORDS = [
    "log",
    "witness",
    "group",
    "quorum",
    "none",
    "all",
    "any",
    "1",
    "2",
    "X1",
    "g",
    "h",
    vkey("X1"),
    vkey("Y1"),
    "#",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(st.sampled_from(_WORDS), max_size=5), max_size=6), st.binary(max_size=5))
def test_whatever_is_in_a_file_both_read_it_or_neither_does(lines: list[list[str]], tail: bytes) -> None:
    data = "".join(" ".join(line) + "\n" for line in lines).encode() + tail
    try:
        ours: quorum.Policy | None = quorum.parse(data)
    except ConfigInvalid:
        ours = None
    try:
        theirs = read_policy(data)
    except Unusable:
        assert ours is None
        return
    assert ours is not None
    for signed in (set[str](), {"X1"}, {"X1", "g", "h"}):
        assert ours.met(signed) == theirs.enough({each.encode() for each in signed})


def lines(word: str, count: int, kind: int = 4, *, begin: str = "w") -> str:
    return "".join(
        f"log {vkey(f'{begin}{n}', kind)}\n" if word == "log" else f"witness {begin}{n} {vkey(f'{begin}{n}', kind)}\n"
        for n in range(count)
    )


GROUPS = lines("witness", 64) + "".join(f"group g{n} all w{n}\n" for n in range(64))


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (lines("log", 64, 1), lines("log", 1, 1, begin="x")), (lines("log", 64, 1), lines("log", 1, 6, begin="x")),
        (lines("log", 64, 6), lines("log", 1, 1, begin="x")), (lines("witness", 64), lines("witness", 1, begin="x")),
        (GROUPS, "group more all g0\n"),
    ],
    ids=["logs", "logs and one ML-DSA-44", "ML-DSA-44 logs and one", "witnesses", "groups"],
)  # fmt: skip
def test_there_may_be_64_of_a_kind_and_not_65(text: str, more: str) -> None:
    both(f"{text}quorum none\n")
    with pytest.raises(Unusable, match="more than 64"):
        read_policy(f"{text}{more}quorum none\n".encode())
    with pytest.raises(ConfigInvalid, match="more than 64"):
        quorum.parse(f"{text}{more}quorum none\n".encode())


def test_a_second_key_of_a_log_stands_once() -> None:
    with pytest.raises(Unusable, match="stands twice"):
        read_policy(f"{lines('log', 1, 6) * 2}quorum none\n".encode())


def test_a_policy_has_at_most_262144_bytes() -> None:
    end = b"\nquorum none\n"
    read_policy(b"#" * (262_144 - len(end)) + end)
    with pytest.raises(Unusable, match="too long"):
        read_policy(b"#" * (262_145 - len(end)) + end)


def test_the_quorum_none_is_met_by_nobody_and_another_is_not() -> None:
    assert read_policy(b"quorum none\n").enough(set())
    assert not read_policy(f"{X1}quorum X1\n".encode()).enough(set())
    assert read_policy(f"{X1}quorum X1\n".encode()).enough({b"X1"})
