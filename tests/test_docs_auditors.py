"""docs/auditors.md is followed as it stands: its commands are run, its tables compared, its test data recomputed."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from company import Company, company, said
from onbehalf.explain import tiles, tree
from onbehalf.explain.channel import channel_of
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, tlog_proof, write
from onbehalf.explain.leaf import make, opened_facts, read, spell
from onbehalf.model import AuditEntry, Json, UnixTime
from onbehalf.verifier import channels as verifier_channels
from onbehalf.verifier import merkle
from onbehalf.verifier.command import main
from onbehalf.verifier.leaves import read_leaf
from onbehalf.verifier.note import checkpoint, log_key
from onbehalf.verifier.opened import Opened, Reading
from onbehalf.verifier.receipts import Receipts
from onbehalf.verifier.report import Verdict
from ports import free_port

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "auditors.md").read_text(encoding="utf-8")
VECTORS: dict[str, Any] = json.loads((DOCS / "vectors" / "record.json").read_text(encoding="utf-8"))


def lines(section: str) -> list[str]:
    """The commands of a section, as they stand."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [line for block in re.findall(r"```\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with company(tmp_path_factory.mktemp("audited") / "it") as made:
        made.notes_listed("alice-at-login", "bob-at-login")
        yield made


def verify(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = main(arguments)
    return code, out.getvalue()


def test_the_page_is_followed_from_the_first_command_to_the_last(
    audited: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONBEHALF_CONFIG", str(audited.config))
    (tmp_path / "log.pub").write_bytes((audited.directory / "data" / "keys" / "log.pub").read_bytes())
    exports, checks = lines("What to ask for"), lines("Verify a bundle in five minutes")
    assert [line.split()[0] for line in checks] == ["pip", "onbehalf-verify", "unzip", "onbehalf-verify"]
    assert all(line.startswith("onbehalf audit export ") for line in exports)

    def exported(line: str) -> None:
        told = said(*shlex.split(line)[1:])
        assert told.code == 0, told.err + told.out

    for line in exports[:-1]:
        exported(line)
    assert verify(*shlex.split(checks[1])[1:])[0] == Verdict.verified
    kept = shlex.split(checks[2])
    assert kept[:2] + kept[3:] == ["unzip", "-p", "checkpoint", ">", "kept"]
    with zipfile.ZipFile(kept[2]) as packed:
        (tmp_path / "kept").write_bytes(packed.read("checkpoint"))
    audited.notes_listed("alice-at-login", "bob-at-login")
    exported(exports[-1])
    code, text = verify(*shlex.split(checks[3])[1:])
    assert code == Verdict.verified, text
    assert "the checkpoint you kept: a beginning of the newest" in text
    for name in ("opened.zip", "some.zip"):
        assert verify(name, "--key-file", "log.pub")[0] == Verdict.verified


def test_samples_are_taken_as_the_page_says(audited: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONBEHALF_CONFIG", str(audited.config))
    (tmp_path / "log.pub").write_bytes((audited.directory / "data" / "keys" / "log.pub").read_bytes())
    for line in lines("A sample that nobody chose"):
        told = said(*shlex.split(line)[1:])
        assert told.code == 0, told.err + told.out
    for name in ("sample.zip", "control.zip"):
        code, text = verify(name, "--key-file", "log.pub")
        assert code == Verdict.verified, text
        assert "chosen by the seed; each is opened in full" in text


def test_a_witness_is_run_as_the_page_says(audited: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONBEHALF_CONFIG", str(audited.config))
    log = (audited.directory / "data" / "keys" / "log.pub").read_text()
    (tmp_path / "log.pub").write_text(log)
    run, export, check = lines("Be a witness")
    port = str(free_port())
    words = [each.replace("$(cat log.pub)", log.strip()).replace("8200", port) for each in shlex.split(run)]
    program = str(Path(sys.executable).with_name(words[0]))
    with subprocess.Popen([program, *words[1:]], stdout=subprocess.PIPE, text=True) as witness:
        try:
            assert witness.stdout is not None
            assert witness.stdout.readline() == (tmp_path / "seen" / "witness.pub").read_text()
            for _ in range(2):
                told = said(*shlex.split(export.replace("8200", port))[1:])
                assert told.code == 0, told.err + told.out
                code, text = verify(*shlex.split(check)[1:])
                assert code == Verdict.verified, text
                assert "cosigned the newest head" in text
                audited.notes_listed("alice-at-login", "bob-at-login")
        finally:
            witness.terminate()
    told = said(*shlex.split(export.replace("8200", port))[1:-1], "none.zip")
    assert told.code == 2
    assert not (tmp_path / "none.zip").exists()


def test_the_command_is_there_as_a_program_of_its_own(audited: Company, tmp_path: Path) -> None:
    told = said("audit", "export", "-c", audited.config, tmp_path / "x.zip")
    assert told.code == 0
    program = Path(sys.executable).with_name("onbehalf-verify")
    ended = subprocess.run(
        [program, tmp_path / "x.zip", "--json"], capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert ended.returncode == Verdict.unpinned, ended.stderr
    assert "WARNING" in ended.stderr
    assert json.loads(ended.stdout)["verdict"] == "unpinned"


def test_the_exit_codes_are_those_of_the_page() -> None:
    found = re.findall(r"^\| (\d) \| (\w+) \|", PAGE, flags=re.MULTILINE)
    assert {(int(code), name) for code, name in found} == {(int(each), each.name) for each in Verdict}


def test_the_page_names_every_file_of_a_bundle_and_every_member_of_a_leaf(audited: Company, tmp_path: Path) -> None:
    assert said("audit", "export", "-c", audited.config, "--open", "all", tmp_path / "x.zip").code == 0
    with zipfile.ZipFile(tmp_path / "x.zip") as packed:
        for name in packed.namelist():
            assert f"| `{re.sub('[0-9a-f]{64}', '<sha-256>', name)}` |" in PAGE
        for line in packed.read("leaves.jsonl").splitlines():
            assert all(f"| `{member}` |" in PAGE for member in json.loads(line))
        for member in json.loads(packed.read("manifest.json")):
            assert f"`{member}`" in PAGE


# --- docs/vectors/record.json ---


def test_the_writer_makes_the_leaves_of_the_vectors() -> None:
    for each in VECTORS["records"]:
        record = each["record"]
        facts: dict[str, Json] = record["facts"]
        entry = AuditEntry(kind=record["kind"], call=record["call"], at=UnixTime(record["at"]), facts=facts)
        made = make(spell(entry), id_=each["id"], salt=bytes.fromhex(each["record_salt"]))
        assert made.leaf.decode() == each["leaf"]
        assert tree.leaf_hash(made.leaf).hex() == each["leaf_hash"]
        leaf = read(made.leaf)
        assert each["opened"] == [
            {"fact": name, "json": spelled, "salt": salt, "commitment": leaf.facts[name]}
            for name, (spelled, salt) in opened_facts(leaf, made.payload).items()
        ]


def test_the_writer_numbers_an_intent_as_the_vectors_do_and_the_verifier_reads_it() -> None:
    told = VECTORS["numbered"]
    assert channel_of(told["origin"], told["audience"]) == told["channel"]
    assert verifier_channels.channel_of(told["origin"], told["audience"]) == told["channel"]
    record = {**told["record"], "at": UnixTime(told["record"]["at"])}
    entry = AuditEntry(**record, audience=told["audience"])
    made = make(
        spell(entry), id_=told["id"], salt=bytes.fromhex(told["record_salt"]), place=(told["channel"], told["n"])
    )
    assert made.leaf.decode() == told["leaf"]
    assert merkle.leaf_hash(made.leaf).hex() == told["leaf_hash"]
    leaf = read_leaf(made.leaf)
    assert (leaf.channel, leaf.number) == (told["channel"], told["n"])


def test_the_verifier_opens_the_facts_of_the_vectors_and_no_changed_one() -> None:
    for index, each in enumerate(VECTORS["records"]):
        leaf = read_leaf(each["leaf"].encode())
        assert merkle.leaf_hash(each["leaf"].encode()).hex() == each["leaf_hash"]
        facts = {fact["fact"]: (fact["json"], fact["salt"]) for fact in each["opened"]}
        assert {fact["fact"]: fact["commitment"] for fact in each["opened"]} == leaf.facts
        assert [*Reading(receipts=Receipts({})).take(leaf, Opened(index=index, facts=facts), None)] == []
        for name, (spelled, salt) in facts.items():
            for wrong in ((spelled + " ", salt), (spelled, "0" * 64)):
                opened = Opened(index=index, facts={name: wrong})
                assert [*Reading(receipts=Receipts({})).take(leaf, opened, None)] != []


def test_both_trees_have_the_roots_proofs_and_ranges_of_the_vectors() -> None:
    hashes = [bytes.fromhex(each["leaf_hash"]) for each in VECTORS["records"]]
    roots = {each["size"]: bytes.fromhex(each["root"]) for each in VECTORS["checkpoints"]}
    assert roots == {size: tree.root(hashes[:size]) for size in range(6)}
    for each in VECTORS["inclusion"]:
        path = [bytes.fromhex(step) for step in each["path"]]
        place = {"index": each["index"], "size": each["size"]}
        assert path == tree.inclusion(each["index"], hashes)
        assert merkle.included(hashes[each["index"]], path=path, root=roots[5], **place)
    for each in VECTORS["consistency"]:
        path = [bytes.fromhex(step) for step in each["path"]]
        assert path == tree.consistency(each["old"], hashes)
        assert merkle.consistent(old=each["old"], old_root=roots[each["old"]], size=5, root=roots[5], path=path)
    for each in VECTORS["ranges"]:
        made = merkle.Range(each["from"], [bytes.fromhex(hash_) for hash_ in each["left"]])
        assert made.root() == roots[each["from"]]
        made.add(hashes[each["from"] : each["to"]])
        assert made.root() == roots[each["to"]]
        made.close(5, [bytes.fromhex(hash_) for hash_ in each["right"]])
        assert made.root() == roots[5]


def test_checkpoints_tiles_and_bundles_are_those_of_the_vectors() -> None:
    signer = NoteSigner("gateway.example/ledger", bytes.fromhex(VECTORS["log"]["seed"]))
    assert signer.verifier.vkey == VECTORS["log"]["vkey"]
    key = log_key(VECTORS["log"]["vkey"])
    for each in VECTORS["checkpoints"]:
        head = Checkpoint(origin=signer.name, size=each["size"], root=bytes.fromhex(each["root"]))
        assert write(head, signer) == each["note"]
        found = checkpoint(each["note"].encode(), key)
        assert (found.size, found.root.hex(), found.signatures) == (each["size"], each["root"], ())
    hashes = [bytes.fromhex(each["leaf_hash"]) for each in VECTORS["records"]]
    proof = tlog_proof(1, tree.inclusion(1, hashes), VECTORS["checkpoints"][5]["note"])
    assert proof == VECTORS["tlog_proof"]
    for each in VECTORS["tiles"]:
        assert tiles.Tile(level=each["level"], number=each["number"], width=each["width"]).path == each["path"]
    leaves = [each["leaf"].encode() for each in VECTORS["records"]]
    assert tiles.bundle(leaves).hex() == VECTORS["entry_bundle"]["hex"]
