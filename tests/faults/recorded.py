"""What a process did to the files of a directory, recorded by strace, and every disk that a loss of power could leave.

The method is ALICE's (Pillai and others, OSDI 2014): writes and changes of names are in doubt until the file, or the
folder, was synced with success; what is in doubt may be lost or kept, one by one, whatever its order, and a write also
in part, by sectors of 512 bytes. A sync that failed settles nothing, and what was in doubt then stays so: the kernel
may drop a page that it could not write, and say nothing at the next sync (Rebello and others, ATC 2020).

Two things are taken as given: changes of names within a folder reach the disk in their order, as in journalling file
systems, and a sector is written whole. Shared memory (`-shm`) is left out: SQLite makes it anew.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

__all__ = ["Disk", "Recording", "disks", "strace"]

_CALLS = "openat,write,pwrite64,fsync,fdatasync,ftruncate,unlink,rename,link"
_LINE = re.compile(r"(\d+) +(.*)")
_DONE = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<[^>]*>)?(?: .*)?", re.DOTALL)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FD = re.compile(r"\d+<((?:\\x[0-9a-f]{2})*)>")
_SECTOR = 512
_EXHAUSTIVE = 8
"""So many operations in doubt, and every subset of them is tried; with more, a sample."""


def strace(*arguments: str) -> list[str]:
    """The command that runs a Python process under strace."""
    found = shutil.which("strace")
    assert found is not None, "strace is not installed (apt-get install strace)"
    return [found, "-f", "-xx", "-y", "-s", "200000", *arguments, sys.executable]


@dataclass(frozen=True, slots=True)
class _Op:
    """One change. `inode` is the file's number here; of a folder's own sync it is -1."""

    what: str  # "link", "unlink", "write", "truncate", "sync", "failed"
    inode: int = -1
    name: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Disk:
    """What a loss of power left: each file's bytes, and all that clients and backend had written down by then."""

    files: dict[str, bytes]
    told: tuple[dict[str, Any], ...]
    how: str

    def put(self, directory: Path) -> None:
        for name, data in self.files.items():
            (directory / name).write_bytes(data)


@dataclass(slots=True)
class Recording:
    """The changes of one directory's files `named`, over one process or several after each other, beginning empty.

    Lines appended to `clients` and `backend` are what was told to the world: not part of the disk.
    """

    directory: Path
    named: tuple[str, ...] = ("log.db", "log.db-wal", "log.db-journal")
    ops: list[_Op] = field(default_factory=list)
    told: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By place in `ops`: what was told just before that operation."""
    _names: dict[str, int] = field(default_factory=dict)
    _inodes: int = 0
    _telling: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    _cut: dict[str, bytes] = field(default_factory=dict)

    def run(self, *arguments: str, inject: Sequence[str] = (), code: int | None = 0) -> str:
        """Run Python with these arguments and record it; what it printed. `inject` are strace's fault expressions."""
        trace = self.directory / "trace"
        injected = [f"--inject={each}" for each in inject]
        command = strace("-e", f"trace={_CALLS}", "-o", str(trace), *injected)
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=110, check=False)
        assert code is None or done.returncode == code, (done.returncode, done.stderr[-2000:])
        for call in _calls(trace):
            self._take(*call)
        trace.unlink()
        return done.stdout

    def _take(self, name: str, arguments: str, result: int) -> None:
        paths = [_path(each) for each in _FD.findall(arguments)]
        path = paths[0] if paths else None
        strings = _STRING.findall(arguments)
        if name == "openat":
            opened = Path(_bytes(strings[0]).decode()) if strings else None
            if result >= 0 and "O_CREAT" in arguments and opened is not None and self._ours(opened):
                self._create(opened.name)
        elif name in ("fsync", "fdatasync") and path is not None:
            if path == self.directory:
                self._op("sync" if result == 0 else "failed")
            elif self._ours(path) and path.name in self._names:
                self._op("sync" if result == 0 else "failed", inode=self._names[path.name])
        elif name == "unlink" and result == 0:
            gone = Path(_bytes(strings[0]).decode())
            if self._ours(gone):
                self._op("unlink", inode=self._names.pop(gone.name), name=gone.name)
        elif path is not None and result >= 0 and path.parent == self.directory:
            self._change(name, arguments, result, path)

    def _change(self, name: str, arguments: str, result: int, path: Path) -> None:
        if path.name in ("clients", "backend"):
            data = self._cut.pop(path.name, b"") + _bytes(_STRING.findall(arguments)[0])[:result]
            *whole, rest = data.split(b"\n")
            self._telling += [(len(self.ops), json.loads(line)) for line in whole]
            self._cut[path.name] = rest
        elif self._ours(path) and name in ("pwrite64", "ftruncate"):
            last = int(arguments.rpartition(", ")[2])
            data = _bytes(_STRING.findall(arguments)[0])[:result] if name == "pwrite64" else b""
            what = "write" if name == "pwrite64" else "truncate"
            self._op(what, inode=self._names[path.name], offset=last, data=data)
        else:
            assert not self._ours(path), f"{name} on {path.name} is not understood"

    def _ours(self, path: Path) -> bool:
        return path.parent == self.directory and path.name in self.named

    def _create(self, name: str) -> None:
        if name not in self._names:
            self._names[name] = self._inodes
            self._op("link", inode=self._inodes, name=name)
            self._inodes += 1

    def _op(self, what: str, **more: Any) -> None:
        self.ops.append(_Op(what, **more))

    def told_by(self, place: int) -> tuple[dict[str, Any], ...]:
        """What was told before operation `place` was begun."""
        return tuple(said for at, said in self._telling if at <= place)

    def points(self) -> list[int]:
        """Where most is in doubt: before each sync, and at the end."""
        syncs = [place for place, op in enumerate(self.ops) if op.what in ("sync", "failed")]
        told = [at for at, _ in self._telling]
        return sorted({*syncs, *told, len(self.ops)})

    def doubtful(self, point: int) -> list[int]:
        """The operations before `point` that no successful sync has settled."""
        left: list[int] = []
        failed: set[int] = set()
        for place, op in enumerate(self.ops[:point]):
            if op.what in ("sync", "failed"):
                about = [each for each in left if _settled_by(self.ops[each], op)]
                if op.what == "failed":
                    failed |= {each for each in about if self.ops[each].what == "write"}
                else:
                    left = [each for each in left if each not in about or each in failed]
            else:
                left.append(place)
        return left

    def disk(self, point: int, lost: Sequence[int] = (), torn: dict[int, slice] | None = None) -> Disk:
        """The disk after a loss of power just before operation `point`, without the operations `lost`."""
        without, names, files = set(lost), dict[str, int](), dict[int, bytearray]()
        for place, op in enumerate(self.ops[:point]):
            if place in without and not (torn and place in torn):
                continue
            if op.what == "link":
                names[op.name] = op.inode
            elif op.what == "unlink":
                if names.get(op.name) == op.inode:
                    del names[op.name]
            elif op.what == "write":
                part = torn[place] if torn and place in torn else slice(0, len(op.data))
                begin = part.indices(len(op.data))[0]
                _write(files.setdefault(op.inode, bytearray()), op.offset + begin, op.data[part])
            elif op.what == "truncate":
                data = files.setdefault(op.inode, bytearray())
                data[op.offset :] = bytes(max(0, op.offset - len(data)))
        kept = {name: bytes(files.get(inode, b"")) for name, inode in names.items()}
        how = f"before operation {point}, lost {sorted(without)}, torn {torn or {}}"
        return Disk(files=kept, told=self.told_by(point), how=how)

    def legal(self, lost: set[int], doubtful: Sequence[int]) -> bool:
        """Whether names were lost from the last on only."""
        named = [each in lost for each in doubtful if self.ops[each].what in ("link", "unlink")]
        return named == sorted(named)


def disks(recording: Recording, *, chance: random.Random, sample: int, since: int = 0) -> Iterator[Disk]:
    """Disks that a loss of power from operation `since` on may leave, each once.

    All of them where few operations are in doubt, else the ends, each operation alone lost or kept, each beginning, and
    `sample` others; and writes in part.
    """
    seen: dict[tuple[Any, ...], int] = {}
    for point in recording.points():
        if point < since:
            continue
        doubtful = recording.doubtful(point)
        for lost in _subsets(doubtful, chance, sample):
            if not recording.legal(lost, doubtful):
                continue
            torn = {place: part for place in [*lost][:1] for part in _part(recording.ops[place], chance)}
            for tear in (None, torn) if torn else (None,):
                disk = recording.disk(point, [*lost], tear)
                told = len(disk.told)
                if seen.get(key := (*sorted(disk.files.items()),), -1) < told:
                    seen[key] = told
                    yield disk


def _subsets(doubtful: Sequence[int], chance: random.Random, sample: int) -> Iterator[set[int]]:
    if len(doubtful) <= _EXHAUSTIVE:
        for count in range(len(doubtful) + 1):
            yield from map(set, combinations(doubtful, count))
        return
    everything = set(doubtful)
    yield from (set(doubtful[cut:]) for cut in range(len(doubtful) + 1))
    yield from ({each} for each in doubtful)
    yield from (everything - {each} for each in doubtful)
    for _ in range(sample):
        yield {each for each in doubtful if chance.random() < 0.5}


def _part(op: _Op, chance: random.Random) -> Iterator[slice]:
    """A beginning or an end of a write, cut between two sectors of the file."""
    if op.what != "write":
        return
    ends = range(_SECTOR - op.offset % _SECTOR, len(op.data), _SECTOR)
    if len(ends):
        cut = chance.choice(ends)
        yield slice(0, cut) if chance.random() < 0.5 else slice(cut, len(op.data))


def _settled_by(op: _Op, sync: _Op) -> bool:
    if sync.inode < 0:
        return op.what in ("link", "unlink")
    return op.inode == sync.inode and op.what in ("write", "truncate")


def _write(file: bytearray, offset: int, data: bytes) -> None:
    if offset > len(file):
        file += bytes(offset - len(file))
    file[offset : offset + len(data)] = data


def _calls(trace: Path) -> Iterator[tuple[str, str, int]]:
    """Each system call in the order of its end: name, arguments and result."""
    begun: dict[str, str] = {}
    for line in trace.read_text(encoding="ascii", errors="replace").splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        process, text = found[1], found[2]
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if text.startswith("<... "):
            text = begun.pop(process, "") + text.partition("resumed>")[2]
        done = _DONE.fullmatch(text)
        assert done or "= ?" in text or text[:3] in ("+++", "---"), f"not understood: {text[:200]}"
        if done is not None:
            yield done[1], done[2], int(done[3])


def _bytes(spelled: str) -> bytes:
    return bytes.fromhex(spelled.replace("\\x", ""))


def _path(spelled: str) -> Path:
    return Path(_bytes(spelled).decode(errors="replace").removesuffix(" (deleted)"))
