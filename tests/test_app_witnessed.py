"""The running house with a real witness beside it: what it sends once it is witnessed, and when it stops for good."""

from __future__ import annotations

import asyncio
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from company import Company, company, said, wait_for
from onbehalf.app import App, building
from onbehalf.cli.explain import opened
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable
from onbehalf.model import Presented, Reply, ToolRequest
from onbehalf.places import load_settings, log_origin
from onbehalf.verifier.check import check
from onbehalf.verifier.command import main as verify
from onbehalf.verifier.policy import read_policy
from onbehalf.verifier.report import Verdict
from ports import free_port
from witness_house import policy_text, witness_process

WRITE = "desk_write: {action: writeDesk, "
LIMITS = "  limits: {call_seconds: 8}\n"


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        made.edit(WRITE, f"{WRITE}durability: witnessed, ")
        made.edit(LIMITS, f"{LIMITS}  witnesses: {{policy: witnesses.policy, wait_seconds: 5}}\n")
        yield made


def log_key(around: Company) -> str:
    keys = open_ledger_keys(around.directory / "data" / "keys", origin=log_origin(load_settings(around.config)))
    return keys.signer.verifier.vkey


@contextmanager
def witness(around: Company, folder: Path, port: int) -> Iterator[str]:
    """`onbehalf-witness` as another team runs it; its vkey."""
    with witness_process(folder, log=log_key(around), port=port) as process:
        yield process.vkey


def policed(around: Company, vkey: str, port: int) -> Path:
    place = around.directory / "witnesses.policy"
    place.write_text(policy_text(("w", vkey, f"http://127.0.0.1:{port}"), quorum="all", log=log_key(around)))
    return place


async def call(around: Company, app: App, tool: str) -> Reply:
    request = ToolRequest(tool=tool, arguments={}, protocol="2026-07-28", agent="tests/1")
    return await app.gateway.call(Presented(token=around.token()), request)


def test_a_witnessed_write_waits_for_the_witness_and_is_refused_while_it_is_away(
    around: Company, tmp_path: Path
) -> None:
    port = free_port()
    with witness(around, tmp_path / "w", port) as vkey:
        place = policed(around, vkey, port)

    async def walk() -> None:
        async with building(around.config) as app:
            with witness(around, tmp_path / "w", port):
                assert (await call(around, app, "desk_write")).denial == ""
            refused = await call(around, app, "desk_write")
            assert refused.denial == "witnesses_unavailable"
            assert (await call(around, app, "desk_read")).denial == ""  # which need not be witnessed
            assert [name for name, _ in around.desk.seen] == ["desk_write", "desk_read"]
            with witness(around, tmp_path / "w", port):
                assert (await call(around, app, "desk_write")).denial == ""

    asyncio.run(walk())
    reader = opened(around.config)
    outcomes = [record.facts for record in reader.latest(100) if record.kind == "outcome"]
    reader.close()
    codes = [facts["outcome"]["code"] for facts in outcomes]  # type: ignore[index,call-overload]
    assert codes == ["", "witnesses_unavailable", "", ""]
    assert ["witnessed" in facts for facts in outcomes] == [True, False, False, True]
    out = tmp_path / "all.zip"
    missing = said("audit", "export", "-c", around.config, out)
    assert missing.code != 0
    assert "--unwitnessed" in missing.err + missing.out
    assert not out.exists()
    with witness(around, tmp_path / "w", port):
        assert said("audit", "export", "-c", around.config, "--open", "all", out).code == 0
    report = check(out, policy=read_policy(place.read_bytes()))
    assert (report.verdict, report.witnessed, report.unshown) == (Verdict.verified, 2, [])
    assert all(each.at is not None for each in report.past)
    assert verify([str(out), "--policy", str(place)]) == 0
    assert verify([str(out), "--key", log_key(around), "--policy", str(place)]) == 0
    assert said("audit", "export", "-c", around.config, "--unwitnessed", out).code == 0
    assert verify([str(out), "--policy", str(place)]) == 4


def test_data_put_back_to_an_old_backup_is_found_by_the_witness_and_the_house_stops(
    around: Company, tmp_path: Path
) -> None:
    port = free_port()
    data, backup = around.directory / "data", tmp_path / "backup"

    async def writes(count: int) -> None:
        async with building(around.config) as app:
            for _ in range(count):
                assert (await call(around, app, "desk_write")).denial == ""

    async def after() -> None:
        async with building(around.config) as app:  # the first round, at once after the start, may have found it here
            for tool in ("desk_write", "desk_write", "desk_read"):
                with pytest.raises(LedgerUnavailable):
                    await call(around, app, tool)
            raise LedgerUnavailable(app.ledger.closed)

    with witness(around, tmp_path / "w", port) as vkey:
        policed(around, vkey, port)
        asyncio.run(writes(1))
        shutil.copytree(data, backup)
        asyncio.run(writes(3))
        seen = len(around.desk.seen)
        ledger, heads = data / "ledger.db", data / "heads.db"
        kept = heads.read_bytes()
        shutil.rmtree(data)
        shutil.copytree(backup, data)
        with pytest.raises(LedgerUnavailable, match=r"witness `w`: .*(put back|no continuation)"):
            asyncio.run(after())
        assert len(around.desk.seen) == seen
        assert ledger.exists()
        heads.write_bytes(kept)
        for name in ("heads.db-wal", "heads.db-shm"):
            (data / name).unlink(missing_ok=True)
        with pytest.raises(LedgerCorrupt, match="no beginning"):
            asyncio.run(writes(1))


def test_a_served_gateway_whose_log_a_witness_disowns_is_neither_ready_nor_alive(
    around: Company, tmp_path: Path
) -> None:
    port = free_port()
    data, backup = around.directory / "data", tmp_path / "backup"
    with witness(around, tmp_path / "w", port) as vkey:
        policed(around, vkey, port)
        with around.serving():
            assert around.call("desk_write")["content"][0]["text"] == "done"
        shutil.copytree(data, backup)
        with around.serving():
            assert around.call("desk_write")["content"][0]["text"] == "done"
            assert around.call("desk_write")["content"][0]["text"] == "done"
        shutil.rmtree(data)
        shutil.copytree(backup, data)
        with around.serving(status=503) as process:
            wait_for(lambda: around.get("/healthz").status_code == 503, what="not alive", said=around.served_log)
            assert "witness" in around.get("/readyz").text
            assert process.poll() is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("quorum none\n", "needs nobody"),
        ("{log}witness w {w}\nquorum w\n", "without an address"),
        ("log {w}\nquorum none\n", "none of them"),
        ("{other}witness w {w} https://w.example\nquorum w\n", "none of them"),
        ("witness w {w} http://w.example\nquorum w\n", "https"),
        ("", "quorum"),
        (None, "cannot be read"),
    ],
    ids=range(7),
)
def test_a_policy_that_this_gateway_cannot_keep_is_an_error_at_the_start(
    around: Company, tmp_path: Path, text: str | None, why: str
) -> None:
    with witness(around, tmp_path / "w", free_port()) as vkey:
        pass
    other = open_ledger_keys(tmp_path / "other", origin="other.example/log").signer.verifier.vkey
    if text is not None:
        filled = text.format(log=f"log {log_key(around)}\n", w=vkey, other=f"log {other}\n")
        (around.directory / "witnesses.policy").write_text(filled)

    async def walk() -> None:
        async with building(around.config):
            pass

    with pytest.raises(ConfigInvalid, match=why):
        asyncio.run(walk())


def test_check_says_whether_the_policy_can_be_kept(around: Company, tmp_path: Path) -> None:
    def told() -> list[tuple[str, str]]:
        found = json.loads(said("check", "-c", around.config, "--json").out)["findings"]
        return [(each["level"], each["text"]) for each in found if each["what"] == "witnesses"]

    assert [level for level, _ in told()] == ["warning"]
    with witness(around, tmp_path / "w", free_port()) as vkey:
        pass
    assert [level for level, _ in told()] == ["problem"]
    place = policed(around, vkey, 1)
    assert told() == [("ok", "1 in `witnesses.policy`, quorum `enough`")]
    place.write_text("".join(place.read_text().splitlines(keepends=True)[1:]))
    assert [level for level, _ in told()] == ["ok", "warning"]


def test_a_witnessed_tool_without_witnesses_is_an_error_of_the_configuration(around: Company) -> None:
    around.edit("  witnesses: {policy: witnesses.policy, wait_seconds: 5}\n", "")
    with pytest.raises(ConfigInvalid, match="nobody is there to witness"):
        load_settings(around.config)


def test_a_tool_without_a_word_of_durability_keeps_its_pinned_definition(around: Company, tmp_path: Path) -> None:
    def told() -> list[str]:
        found = json.loads(said("check", "-c", around.config, "--json").out)["findings"]
        return [each["text"] for each in found if "definition is not pinned" in each["text"]]

    witnessed = told()
    around.edit(f"{WRITE}durability: witnessed, ", WRITE)
    before = told()
    around.edit(WRITE, f"{WRITE}durability: durable, ")
    assert told() == before != witnessed
    assert len(before) == 2


def test_the_bundle_of_a_house_with_witnesses_has_their_lines(around: Company, tmp_path: Path) -> None:
    port = free_port()
    with witness(around, tmp_path / "w", port) as vkey:
        policed(around, vkey, port)

        async def walk() -> None:
            async with building(around.config):
                pass

        asyncio.run(walk())
        told = said("audit", "export", "-c", around.config, tmp_path / "x.zip")
        assert told.code == 0, told.err
    with zipfile.ZipFile(tmp_path / "x.zip") as packed:
        lines = packed.read("checkpoint").decode().split("\n— ")[1:]
    log = log_key(around).split("+")[0]
    assert [each.split()[0] for each in lines] == [log, "w.example/1", log]
