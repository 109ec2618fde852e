"""The witness as a process: its key and what it has seen as files in one folder, and one HTTP path.

What was cosigned is on disk, synced, before the cosignature leaves. One folder is one witness: a lock keeps a second
process away. Behind a proxy that ends TLS, unless it listens on loopback.

Trust: whoever reads `witness.key` can cosign anything; whoever can put `seen.json` back to an older state can make it
cosign a second history from there.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm

from onbehalf.verifier.cosign import ML_DSA_44, WitnessKey, witness_key, witness_vkey
from onbehalf.verifier.note import LogKey
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.signers import log_keys
from onbehalf.witness.judge import MAX_REQUEST, Answer, Seen, cosignature, judge

__all__ = ["Witness", "entry", "main", "server"]

_TIMEOUT_S = 10
_AT_A_TIME = 16


class Witness:
    """One witness on one folder. Thread-safe: one request is judged at a time."""

    def __init__(self, folder: Path, *, name: str, logs: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """Makes the folder and key where there are none. Raises Unusable, also where another process has the folder."""
        self._logs: dict[str, list[LogKey]] = {}
        for each in map(log_keys, logs):
            self._logs.setdefault(each.key.name, []).append(each.key)
        self._clock = clock
        self._folder = folder
        self._gate = threading.Lock()
        self._lock = _locked(folder)
        try:
            public, self._sign = _signing(_seed(folder))
            self._seen = _seen(folder / "seen.json")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.close()
            raise Unusable(f"`{folder}` cannot be used by a witness: {error}") from error
        except Unusable:
            self.close()
            raise
        self.vkey = witness_vkey(name, ML_DSA_44, public)
        self._public: WitnessKey = witness_key(self.vkey)

    def close(self) -> None:
        """Let the folder go."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def add_checkpoint(self, request: bytes) -> Answer:
        """Judge, keep, then sign."""
        with self._gate:
            found = judge(request, logs=self._logs, seen=lambda origin: self._seen.get(origin, Seen()))
            if found.head is None:
                return found
            after = {**self._seen, found.origin: Seen(size=found.head.size, root=found.head.root)}
            kept = {origin: {"size": each.size, "root": each.root.hex()} for origin, each in after.items()}
            _write(self._folder / "seen.json", json.dumps(kept).encode(), mode=0o600)
            self._seen = after
            line = cosignature(self._public, self._sign, found.head, found.origin, int(self._clock()))
        return Answer(status=200, body=line)


def _locked(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unusable(f"`{folder}` cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise Unusable(f"another witness uses `{folder}`") from error
    return handle


def _seed(folder: Path) -> bytes:
    """The secret of the witness, made where there is none, but never for one that has seen logs."""
    place = folder / "witness.key"
    if not place.exists():
        if (folder / "seen.json").exists():
            raise Unusable(f"`{folder}` has seen logs, and its key is gone: restore it")
        _write(place, os.urandom(32), mode=0o600)
    if place.stat().st_mode & 0o077:
        raise Unusable(f"`{place}` can be read by others: chmod 600 {place}")
    return place.read_bytes()


def _signing(seed: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The public key of a seed, and what signs with it. Raises Unusable where this installation cannot."""
    try:
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

        key = MLDSA44PrivateKey.from_seed_bytes(seed)
    except (ImportError, UnsupportedAlgorithm) as error:
        raise Unusable("this installation of `cryptography` has no ML-DSA-44; install a newer one") from error
    return key.public_key().public_bytes_raw(), key.sign


def _seen(place: Path) -> dict[str, Seen]:
    """What was cosigned last. A file that cannot be read is not an empty one: forgetting is how forks are cosigned."""
    if not place.exists():
        return {}
    said = json.loads(place.read_bytes())
    return {origin: Seen(size=int(each["size"]), root=bytes.fromhex(each["root"])) for origin, each in said.items()}


def _write(place: Path, data: bytes, *, mode: int) -> None:
    aside = place.with_name(f".{place.name}.new")
    aside.unlink(missing_ok=True)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(place)
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def server(witness: Witness, host: str, port: int) -> ThreadingHTTPServer:
    """The HTTP server, not yet running."""
    room = threading.BoundedSemaphore(_AT_A_TIME)

    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S
        server_version, sys_version = "onbehalf-witness", ""
        protocol_version = "HTTP/1.1"  # a log keeps its connection (C2SP tlog-witness)
        wbufsize, disable_nagle_algorithm = 65_536, True  # an answer leaves at once, and as one

        def do_POST(self) -> None:
            lengths = self.headers.get_all("Content-Length", [])
            length = lengths[0] if len(lengths) == 1 and "Transfer-Encoding" not in self.headers else ""
            if self.path != "/add-checkpoint":
                self._send(Answer(status=404, body="not found\n"), last=True)
            elif not (length.isascii() and length.isdigit() and 0 < int(length[:9]) <= MAX_REQUEST and len(length) < 9):
                self._send(
                    Answer(status=413, body=f"give a body of 1 to {MAX_REQUEST} bytes, with its length\n"), last=True
                )
            elif not room.acquire(blocking=False):
                self._send(Answer(status=503, body="too many at once\n"), last=True)
            else:
                try:
                    self._send(witness.add_checkpoint(self.rfile.read(int(length))))
                except OSError:  # the disk, or a client that sends too slowly: nothing was cosigned
                    self._send(Answer(status=500, body="not kept, so not cosigned\n"), last=True)
                finally:
                    room.release()

        def _send(self, answer: Answer, *, last: bool = False) -> None:
            """Answer; `last` where the request was not read to its end, so that no other can follow it."""
            body = answer.body.encode()
            self.close_connection = self.close_connection or last
            with contextlib.suppress(OSError):  # nobody is there any more
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.kind)
                self.send_header("Content-Length", str(len(body)))
                if self.close_connection:
                    self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: a request's bytes do not go to the terminal."""

    return ThreadingHTTPServer((host, port), Handler)


def main(arguments: Sequence[str]) -> int:
    """Run a witness until it is stopped. Its public key is printed first, and written to `witness.pub`."""
    parser = argparse.ArgumentParser(prog="onbehalf-witness", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where its key and what it has seen are kept")
    parser.add_argument("--name", required=True, help="such as witness.audit.example/1")
    parser.add_argument(
        "--log",
        action="append",
        required=True,
        help="the line or lines of a log's log.pub; may stand again, also for the next key of one log",
    )
    parser.add_argument("--listen", default="127.0.0.1:8200", help="host:port (default %(default)s)")
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    try:
        witness = Witness(given.folder, name=given.name, logs=given.log)
        (given.folder / "witness.pub").write_text(witness.vkey + "\n")
        serving = server(witness, host, int(port))
    except (Unusable, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(witness.vkey, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        serving.serve_forever()
    return 0


def entry() -> None:
    """The command."""
    sys.exit(main(sys.argv[1:]))
