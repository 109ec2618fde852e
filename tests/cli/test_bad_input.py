"""Whatever is wrong is a sentence on stderr and an exit code of 2: never a traceback, never a half-made thing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from company import Company, company, onbehalf, said

COMMANDS = [
    ["serve"], ["check"], ["explain", "last"], ["audit", "verify"], ["audit", "open"], ["audit", "list"],
    ["audit", "proof", "1"], ["keys", "show"], ["keys", "rotate"],
]  # fmt: skip


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it", desk=False) as made:
        yield made


def refused(*arguments: str | Path) -> str:
    """What a command says that cannot do its work, in a process of its own."""
    done = onbehalf(*arguments)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "internal" not in done.stderr
    assert "error: " in done.stderr
    return str(done.stderr)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("bad", ["missing", "directory", "noise", "nul", "empty", "loop"])
def test_a_configuration_that_cannot_be_read_is_told_by_every_command(
    tmp_path: Path, command: list[str], bad: str
) -> None:
    config = tmp_path / "onbehalf.yaml"
    match bad:
        case "directory":
            config.mkdir()
        case "noise":
            config.write_bytes(bytes(range(256)) * 10)
        case "nul":
            config.write_bytes(b"gateway:\0")
        case "empty":
            config.write_bytes(b"")
        case "loop":
            config.symlink_to(config)
    told = said(*command, "-c", config)
    if command == ["check"]:
        assert (told.code, told.err) == (1, "")
        assert "problem  configuration" in told.out
    else:
        assert (told.code, told.out) == (2, "")
        assert "error: " in told.err
        assert "what to do: " in told.err
    assert "internal" not in told.err


def test_an_unreadable_configuration_is_told(around: Company) -> None:
    around.config.chmod(0)
    if os.access(around.config, os.R_OK):
        pytest.skip("root reads everything")
    assert "cannot be read" in refused("serve", "-c", around.config)


def test_a_port_in_use_is_told_and_the_key_that_names_it(around: Company) -> None:
    port = int(around.admin.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        told = refused("serve", "-c", around.config)
    assert f"127.0.0.1:{port}" in told
    assert "`admin`" in told
    assert not around.ledger.exists()


@pytest.mark.parametrize(
    "address", ["8100", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "a..b:80", "no.such.invalid:80"]
)
def test_an_address_nothing_can_listen_on_is_told(around: Company, address: str) -> None:
    around.edit(around.gateway.removeprefix("http://") + '"\n  admin', address + '"\n  admin')
    told = said("serve", "-c", around.config)
    assert (told.code, told.out) == (2, "")
    assert f"`{address}`" in told.err
    assert "internal" not in told.err


@pytest.mark.parametrize("data", ["/proc", "/proc/onbehalf", "people.yaml", "/dev/null/x"])
def test_a_data_directory_that_cannot_be_written_is_told(around: Company, data: str) -> None:
    around.edit("  limits:", f"  data: {data}\n  limits:")
    told = said("serve", "-c", around.config)
    assert (told.code, told.out) == (2, "")
    assert "internal" not in told.err
    assert data in told.err


@pytest.mark.parametrize("name", ["ledger.db", "directory.db", "keys/calls.keys", "keys/log.key", "keys/payload.key"])
def test_noise_in_the_data_directory_is_told_and_left_as_it_is(around: Company, name: str) -> None:
    path = around.directory / "data" / name
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_bytes(bytes(range(256)) * 20)
    path.chmod(0o600)
    told = said("serve", "-c", around.config)
    assert told.code == (1 if name == "ledger.db" else 2), told
    assert "internal" not in told.err
    assert path.name in told.err
    assert path.read_bytes() == bytes(range(256)) * 20


def test_a_second_gateway_on_one_record_is_refused_and_changes_nothing_of_the_first(around: Company) -> None:
    second = around.directory.parent / "second.yaml"
    text = around.config.read_text()
    with around.serving():
        before = (around.directory / "data" / "directory.db").read_bytes()
        for address in (around.gateway, around.admin):
            text = text.replace(f'"{address.removeprefix("http://")}"', '"127.0.0.1:0"')
        for name in ("people.yaml", "policies", "data", "notes.db"):
            text = (
                text.replace("  limits:", f"  {name.split('.')[0]}: it/{name}\n  limits:")
                if name != "notes.db"
                else text
            )
        second.write_text(text.replace("notes.db", "it/notes.db"))
        around.edit("Alice Example", "Alice Somebody", name="people.yaml")
        told = refused("serve", "-c", second)
        assert "another process writes the ledger" in told
        assert (around.directory / "data" / "directory.db").read_bytes() == before
        wal = around.directory / "data" / "directory.db-wal"
        assert not wal.exists() or b"Somebody" not in wal.read_bytes()
        assert around.call("notes_list")["structuredContent"]


def test_a_reader_that_goes_away_ends_the_command_quietly(around: Company) -> None:
    around.notes_listed("alice-at-login")
    for command in (["audit", "list"], ["init", "--schema"]):
        config = [] if command[0] == "init" else ["-c", str(around.config)]
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "onbehalf.cli.main", *command, *config], stdout=writing, stderr=subprocess.PIPE,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        os.close(writing)
        assert done.returncode == 1, command
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_a_terminal_that_knows_no_unicode_ends_no_command(around: Company) -> None:
    around.notes_listed("alice-at-login")
    told = onbehalf("explain", "last", "-c", around.config, env={"PYTHONIOENCODING": "ascii"})
    assert told.returncode == 0, told.stderr
    told = onbehalf("check", "-c", around.directory / "wörld.yaml", env={"PYTHONIOENCODING": "ascii"})
    assert told.returncode == 1, told.stderr


def test_a_demo_that_cannot_write_says_so() -> None:
    told = refused("demo", "--once", "--any-port", "--data", "/proc/onbehalf-demo")
    assert "/proc/onbehalf-demo" in told


def test_ctrl_c_while_it_serves_ends_it_cleanly(around: Company) -> None:
    with around.serving() as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "the record is closed" in around.served_log()
    assert "Traceback" not in around.served_log()


def test_an_error_that_nobody_thought_of_is_a_sentence_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onbehalf.cli.init.json_schema", lambda: 1 / 0)
    told = said("init", "--schema")
    assert (told.code, told.out) == (2, "")
    assert "ONBEHALF_DEBUG" in told.err
    monkeypatch.setenv("ONBEHALF_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        said("init", "--schema")
