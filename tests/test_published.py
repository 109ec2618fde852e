"""The program that runs published test data says what our readers say, and notices where the data disagrees."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from nacl.signing import SigningKey

import published
from onbehalf.explain import tree

LEAVES = [tree.leaf_hash(b"%d" % number) for number in range(5)]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One case of each set, all of them right."""
    proofs = tmp_path / "merkle" / "testdata"
    write(proofs / "inclusion" / "a.json", {
        "leafIdx": 3, "treeSize": 5, "root": b64(tree.root(LEAVES)), "leafHash": b64(LEAVES[3]),
        "proof": [*map(b64, tree.inclusion(3, LEAVES))], "desc": "good", "wantErr": False,
    })  # fmt: skip
    write(proofs / "consistency" / "a.json", {
        "size1": 2, "size2": 5, "root1": b64(tree.root(LEAVES[:2])), "root2": b64(tree.root(LEAVES)),
        "proof": None, "desc": "empty proof", "wantErr": True,
    })  # fmt: skip
    key = SigningKey(bytes(32))
    signed = {"tcId": 1, "comment": "good", "msg": "00", "sig": key.sign(b"\0").signature.hex(), "result": "valid"}
    group = {"publicKey": {"pk": bytes(key.verify_key).hex()}, "tests": [signed]}
    write(tmp_path / "wycheproof" / "testvectors_v1" / "ed25519_test.json", {"testGroups": [group]})
    write(tmp_path / "wycheproof" / "testvectors_v1" / "mldsa_44_verify_test.json", {"testGroups": []})
    edge = {"key": bytes(32).hex(), "sig": bytes(64).hex(), "msg": "x", "flags": ["low_order_A"]}
    write(tmp_path / "CCTV" / "ed25519" / "ed25519vectors.json", [edge])
    return tmp_path


def write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def test_cases_that_are_told_as_published_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert published.main([str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "inclusion proofs: 1 cases, 0 told otherwise", "consistency proofs: 1 cases, 0 told otherwise",
        "Ed25519: 1 cases, 0 told otherwise", "ML-DSA-44: 0 cases, 0 told otherwise",
        "Ed25519, edges (what is taken): 1 cases, 0 told otherwise",
    ]  # fmt: skip


@pytest.mark.parametrize("of", ["merkle/testdata/inclusion/a.json", "merkle/testdata/consistency/a.json"])
def test_a_case_that_both_readers_tell_otherwise_is_named_for_each(
    folder: Path, of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((folder / of).read_text(encoding="utf-8"))
    write(folder / of, {**document, "wantErr": not document["wantErr"]})
    assert published.main([str(folder)]) == 1
    said = capsys.readouterr().out
    assert said.count("NOT KNOWN") == 2
    assert f"gateway: {Path(of).parent.name}: {document['desc']}" in said


def test_without_data_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert published.main([str(tmp_path)]) == 2
    assert "clones of transparency-dev/merkle" in capsys.readouterr().err
