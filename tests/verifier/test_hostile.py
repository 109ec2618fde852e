"""Zip files and JSON made to hurt whoever opens them: each is refused, bounded, never with a traceback."""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from onbehalf.verifier.check import check
from onbehalf.verifier.command import main
from onbehalf.verifier.refused import Unusable
from verifier.bundle_house import Bundle, bundled, packed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundled(tmp_path_factory.mktemp("bundle"))


def zipped(place: Path, files: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files:
            made.writestr(name, data)
    return place


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "a/../../b", "leaves.jsonl/", "LEAVES.JSONL", "policies/x.json", "C:\\x", "\u202e"],
)
def test_names_that_no_bundle_has_are_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(Unusable, match="a name that no bundle has"):
        check(zipped(tmp_path / "x.zip", [*bundle.files.items(), (name, b"x")]), key=bundle.vkey)
    assert [each.name for each in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", [*bundle.files.items(), ("leaves.jsonl", b"{}\n")])
    with pytest.raises(Unusable, match="stands twice"):
        check(path, key=bundle.vkey)


@pytest.mark.parametrize("name", ["leaves.jsonl", "opened.jsonl", "manifest.json", "proof.json", "checkpoint"])
def test_a_bomb_is_refused_early_and_without_much_memory(bundle: Bundle, tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for each, data in bundle.files.items():
            if each != name:
                made.writestr(each, data)
        with made.open(name, "w", force_zip64=True) as file:
            for _ in range(200):
                file.write(b" " * (1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unusable, match=name):
        check(path, key=bundle.vkey)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024


def test_more_than_may_be_unpacked_in_all_is_refused(bundle: Bundle) -> None:
    with pytest.raises(Unusable, match="--max-bytes"):
        check(bundle.path, key=bundle.vkey, max_bytes=2000)
    total = sum(map(len, bundle.files.values()))
    assert check(bundle.path, key=bundle.vkey, max_bytes=total).findings == []
    with pytest.raises(Unusable, match="--max-bytes"):
        check(bundle.path, key=bundle.vkey, max_bytes=total - 1)


def test_a_directory_that_says_it_is_huge_is_not_read(bundle: Bundle, tmp_path: Path) -> None:
    data = bytearray(packed(tmp_path / "x.zip", bundle.files).read_bytes())
    for count, size in ((65_535, 100), (5, 2**31)):
        spoiled = data[:]
        spoiled[-12:-6] = struct.pack("<HI", count, size)
        (tmp_path / "x.zip").write_bytes(spoiled)
        with pytest.raises(Unusable, match="which no bundle has"):
            check(tmp_path / "x.zip", key=bundle.vkey)
    zip64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 2**40, 2**40, 2**40, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(data) - 22, 1)
    (tmp_path / "x.zip").write_bytes(bytes(data[:-22]) + zip64 + locator + bytes(data[-22:]))
    with pytest.raises(Unusable, match="which no bundle has"):
        check(tmp_path / "x.zip", key=bundle.vkey)
    zipped(tmp_path / "many.zip", [(f"policies/{number:064x}.json", b"") for number in range(2000)])
    with pytest.raises(Unusable, match="which no bundle has"):
        check(tmp_path / "many.zip", key=bundle.vkey)


@pytest.mark.parametrize("name", ["manifest.json", "proof.json", "keys.json", "leaves.jsonl", "opened.jsonl"])
@pytest.mark.parametrize(
    "data",
    [
        b"[" * 50_000, b'{"a":' * 10_000, b'{"a":1,"a":2}',
        b"NaN", b"1e999", b"1" * 5000, b'"\\ud800"', b"\xff\xfe", b"",
        b"null", b"[]", b"{}", b'{"index":0}', b'{"index":1,"fact":"x","json":1,"salt":2}', b"[" * 700 + b"]" * 700,
    ],
    ids=range(15),
)  # fmt: skip
def test_json_made_to_hurt_is_found_or_refused(bundle: Bundle, tmp_path: Path, name: str, data: bytes) -> None:
    path = zipped(tmp_path / "x.zip", [*{**bundle.files, name: data + b"\n"}.items()])
    assert main([str(path), "--key", bundle.vkey]) in (1, 2)


def test_an_opened_fact_that_is_nested_without_end_is_found(bundle: Bundle, tmp_path: Path) -> None:
    lines = bundle.files["opened.jsonl"].splitlines(keepends=True)
    said = json.loads(lines[0])
    lines[0] = json.dumps({**said, "json": "[" * 1_000_000}).encode() + b"\n"
    path = packed(tmp_path / "x.zip", {**bundle.files, "opened.jsonl": b"".join(lines)}, honest=True)
    assert main([str(path), "--key", bundle.vkey]) == 1


def test_cut_flipped_and_random_files_never_end_in_a_traceback(bundle: Bundle, tmp_path: Path) -> None:
    good = bundle.path.read_bytes()
    chance = random.Random(7)
    path = tmp_path / "x.zip"
    for turn in range(400):
        data = bytearray(good)
        if turn % 4 == 0:
            del data[chance.randrange(len(data)) :]
        elif turn % 4 == 1:
            for _ in range(chance.randrange(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        elif turn % 4 == 2:
            at = len(data) - chance.randrange(1, 900)
            data[at] = chance.randrange(256)
        else:
            data = bytearray(chance.randbytes(chance.randrange(300)))
        path.write_bytes(data)
        if bytes(data) != good:
            assert main([str(path), "--key", bundle.vkey, "--json"]) in (1, 2, 6), turn


def test_what_is_no_bundle_at_all_is_said(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "before").write_bytes(b"#!/bin/sh\n" + bundle.path.read_bytes())
    (tmp_path / "behind").write_bytes(bundle.path.read_bytes() + b"x")
    for path in (tmp_path / "empty", tmp_path, tmp_path / "nothing", tmp_path / "before", tmp_path / "behind"):
        assert main([str(path)]) == 2


@pytest.mark.parametrize("key", ["x", "a+b+c", "a" * 100_000, "gateway.example/log+00000000+AQ=="])
def test_a_key_that_is_none_is_said(bundle: Bundle, key: str) -> None:
    assert main([str(bundle.path), "--key", key]) == 2


def test_what_a_bundle_says_reaches_a_terminal_without_control_characters(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads(bundle.files["manifest.json"])
    manifest["asked"] = {"from": "\x1b[2J\u202e", "\n": "\r"}
    manifest["files"]["\x1b[31m"] = {"sha256": "", "bytes": 0}
    path = zipped(tmp_path / "x.zip", [*{**bundle.files, "manifest.json": json.dumps(manifest).encode()}.items()])
    assert main([str(path), "--key", bundle.vkey]) == 1
    assert all(each.isprintable() or each == "\n" for each in capsys.readouterr().out)


ALONE = """
import sys, importlib.abc
class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("cryptography", "_cffi_backend", "cffi"):
            return None
        if name == "onbehalf" or name.startswith(("onbehalf.verifier", "onbehalf.witness")):
            return None
        raise ImportError("not allowed here: " + name)
sys.meta_path.insert(0, Only())
import onbehalf.witness.serve
from onbehalf.verifier.command import main
code = main(sys.argv[1:])
assert not [name for name in sys.modules if name.startswith("onbehalf.") and name[9:16] not in ("verifie", "witness")]
sys.exit(code)
"""


def test_it_needs_pythons_library_and_cryptography_and_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ALONE, str(bundle.path), "--key", bundle.vkey, "--json"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert ended.returncode == 6, ended.stderr
    assert json.loads(ended.stdout)["findings"] == []


def test_the_contract_names_every_part_of_the_gateway() -> None:
    import tomllib

    root = Path(__file__).parents[2]
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [named] = [each["forbidden_modules"] for each in contracts if each["type"] == "forbidden"]
    parts = {
        each.stem for each in (root / "src" / "onbehalf").iterdir() if each.stem[0] not in "_p" or each.suffix == ".py"
    }
    parts -= {"__init__", "verifier", "witness", "__pycache__"}
    assert {f"onbehalf.{part}" for part in parts} == set(named)
