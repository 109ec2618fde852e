"""The key file: made once, kept to oneself, rotated without a gap."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from act.granted import ARGUMENTS, AUDIENCE, ISSUER, NOW, granted
from onbehalf.act import LIFE_S
from onbehalf.backend import MemoryReplay, read_keys, verify_call
from onbehalf.doors import key_file
from onbehalf.doors.signer_file import CACHE_S, FileSigner
from onbehalf.errors import ConfigInvalid, SignerUnavailable
from onbehalf.model import UnixTime

OVERLAP_S = 2 * CACHE_S + LIFE_S


def opened(directory: Path, now: int = NOW) -> FileSigner:
    return FileSigner.open(directory, issuer=ISSUER, now=UnixTime(now))


def believed(token: str, signer: FileSigner, now: int = NOW) -> bool:
    keys = read_keys(signer.jwks(), issuer=ISSUER)
    call = verify_call(
        token, keys=keys, issuer=ISSUER, audience=AUDIENCE, tool="update_ticket", arguments=ARGUMENTS,
        now=UnixTime(now), replay=MemoryReplay(),
    )  # fmt: skip
    return call.person == "alice"


def later(seconds: int) -> UnixTime:
    return UnixTime(NOW + seconds)


def published(signer: FileSigner) -> list[str]:
    return [key["kid"] for key in signer.jwks()["keys"]]  # type: ignore[union-attr,index,call-overload,misc]


def test_keys_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        first = opened(tmp_path / "keys")
    finally:
        os.umask(before)
    assert opened(tmp_path / "keys", NOW + 9).kids == first.kids
    assert len(first.kids) == 2
    assert [(file.name, file.stat().st_mode & 0o777) for file in (tmp_path / "keys").iterdir()] == [
        ("calls.keys", 0o600)
    ]
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o610, 0o601])
def test_a_key_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    opened(tmp_path)
    (tmp_path / "calls.keys").chmod(mode)
    with pytest.raises(SignerUnavailable, match="must be a regular file of mode 0600") as caught:
        opened(tmp_path)
    assert "chmod 600" in caught.value.hint


def test_a_link_in_place_of_the_key_file_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "theirs")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "calls.keys").symlink_to(tmp_path / "theirs" / "calls.keys")
    with pytest.raises(SignerUnavailable, match="cannot be read"):
        opened(tmp_path / "keys")


def test_a_pipe_in_place_of_the_key_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "calls.keys", 0o600)
    with pytest.raises(SignerUnavailable, match="regular file"):
        opened(tmp_path)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SignerUnavailable, match="cannot be made"):
        opened(tmp_path / "file" / "keys")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\x00" * 20_000, b'{"version":1,"next":{"seed":"secret"}}'])
def test_a_file_that_holds_no_keys_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "calls.keys").write_bytes(content)
    (tmp_path / "calls.keys").chmod(0o600)
    with pytest.raises(SignerUnavailable, match="does not hold keys") as caught:
        opened(tmp_path)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_with_one_key_in_two_places_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    file = tmp_path / "calls.keys"
    read = key_file._read(file)
    file.write_bytes(key_file.msgspec.json.encode(key_file._Stored(next=read.current, current=read.current)))
    with pytest.raises(SignerUnavailable, match="one key twice"):
        opened(tmp_path)


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    signer = opened(tmp_path)
    stored = key_file._read(tmp_path / "calls.keys")
    shown = repr(signer) + repr(vars(signer)) + repr(stored) + repr(signer.jwks())
    assert stored.current.seed not in shown
    assert stored.next.seed not in shown


def test_a_signer_without_an_issuer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="need an issuer"):
        FileSigner.open(tmp_path, issuer="", now=NOW)


def test_processes_that_open_at_once_have_the_same_keys(tmp_path: Path) -> None:
    found: list[tuple[str, ...]] = []
    gate = threading.Barrier(8)

    def one() -> None:
        gate.wait()
        found.append(opened(tmp_path / "keys").kids)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["calls.keys"]


def test_a_key_is_published_before_it_signs(tmp_path: Path) -> None:
    signer = opened(tmp_path)
    before = read_keys(signer.jwks(), issuer=ISSUER)
    signer.rotate(later(CACHE_S))
    assert signer.kid in before
    token = signer.sign(granted(now=later(CACHE_S))).compact
    call = verify_call(
        token, keys=before, issuer=ISSUER, audience=AUDIENCE, tool="update_ticket", arguments=ARGUMENTS,
        now=later(CACHE_S), replay=MemoryReplay(),
    )  # fmt: skip
    assert call.tenant == "acme"


def test_a_token_from_before_a_rotation_is_believed_after_it(tmp_path: Path) -> None:
    signer = opened(tmp_path)
    token, kid = signer.sign(granted(now=later(CACHE_S))).compact, signer.kid
    signer.rotate(later(CACHE_S))
    assert signer.kid != kid
    assert published(signer) == list(signer.kids)
    assert kid in signer.kids
    assert believed(token, signer, NOW + CACHE_S + 29)


def test_a_former_key_stays_published_for_its_overlap_and_then_no_more(tmp_path: Path) -> None:
    signer = opened(tmp_path)
    kid = signer.kid
    signer.rotate(later(CACHE_S))
    signer.rotate(later(2 * CACHE_S))
    assert kid in signer.kids
    assert len(signer.kids) == 4
    signer.rotate(later(CACHE_S + OVERLAP_S))
    assert kid not in signer.kids


def test_a_next_key_that_backends_may_not_know_yet_does_not_sign(tmp_path: Path) -> None:
    signer = opened(tmp_path)
    with pytest.raises(ConfigInvalid, match=f"published for {CACHE_S - 1} s") as caught:
        signer.rotate(later(CACHE_S - 1))
    assert "rotate in 1 s" in caught.value.hint
    signer.rotate(later(CACHE_S))
    with pytest.raises(ConfigInvalid):
        signer.rotate(later(CACHE_S))


def test_lost_keys_are_all_replaced_at_once(tmp_path: Path) -> None:
    signer = opened(tmp_path)
    before = set(signer.kids)
    signer.rotate(NOW, lost=True)
    assert len(signer.kids) == 2
    assert before.isdisjoint(signer.kids)
    assert before.isdisjoint(published(signer))
    assert believed(signer.sign(granted()).compact, signer)


def test_the_private_half_of_a_former_key_is_not_kept(tmp_path: Path) -> None:
    signer = opened(tmp_path)
    seed = key_file._read(tmp_path / "calls.keys").current.seed
    signer.rotate(later(CACHE_S))
    assert seed.encode() not in (tmp_path / "calls.keys").read_bytes()


def test_another_process_rotates_and_this_one_takes_it_over(tmp_path: Path) -> None:
    signer = opened(tmp_path)
    assert not signer.reload()
    other = opened(tmp_path)
    other.rotate(later(CACHE_S))
    assert signer.kids != other.kids
    assert signer.reload()
    assert signer.kids == other.kids
    assert believed(signer.sign(granted()).compact, other)


def test_a_reload_that_fails_leaves_the_signer_as_it_was(tmp_path: Path) -> None:
    signer = opened(tmp_path)
    kids = signer.kids
    (tmp_path / "calls.keys").unlink()
    with pytest.raises(SignerUnavailable):
        signer.reload()
    with pytest.raises(SignerUnavailable):
        signer.rotate(later(CACHE_S))
    assert signer.kids == kids
    assert believed(signer.sign(granted()).compact, signer)


def test_a_rotation_that_fails_on_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = opened(tmp_path)
    kids, content = signer.kids, (tmp_path / "calls.keys").read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SignerUnavailable, match="No space left"):
        signer.rotate(later(CACHE_S))
    assert signer.kids == kids
    assert (tmp_path / "calls.keys").read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["calls.keys"]


@settings(max_examples=30, deadline=None)
@given(waits=st.lists(st.integers(0, 2 * OVERLAP_S), max_size=12), reload_at=st.integers(0, 12))
def test_every_token_is_believed_its_whole_life_whatever_rotates(
    tmp_path_factory: pytest.TempPathFactory, waits: list[int], reload_at: int
) -> None:
    directory = tmp_path_factory.mktemp("keys")
    signer, now = opened(directory), int(NOW)
    known: set[str] = set(signer.kids)
    for step, wait in enumerate(waits):
        now += wait
        token = signer.sign(granted(now=UnixTime(now))).compact
        if step == reload_at:
            signer = opened(directory, now)
        try:
            signer.rotate(UnixTime(now))
        except ConfigInvalid:
            assert signer.kid in known
        assert signer.kid in known, "a key signed that was not published before"
        assert believed(token, signer, now + 34)
        known = set(signer.kids)
