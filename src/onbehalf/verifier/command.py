"""`onbehalf-verify`: check one bundle of evidence, offline. The exit code is the verdict (report.py)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from onbehalf.verifier.backend_rows import BackendRecord, read_rows
from onbehalf.verifier.besides import Besides
from onbehalf.verifier.check import MAX_BYTES, check
from onbehalf.verifier.crew import MOST_JOBS
from onbehalf.verifier.policy import MAX_POLICY, read_policy
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Verdict

__all__ = ["entry", "main"]

_MAX_NOTE = 262_144
_CODES = """exit codes:
  0 verified   everything holds, under the key you gave
  1 invalid    something does not hold
  2 unusable   no bundle, over a bound, or wrong arguments
  3 diverged   two signed heads of one log, and one is no beginning of the other
  4 unpinned   everything holds, but the key is the bundle's own, or a witness, or the policy's quorum, did not cosign
  5 erased     everything holds; some of what was to be opened is erased
  6 unknown    everything holds; some calls have no known end
  7 incomplete everything holds; a backend's own record does not agree with it
"""


def main(arguments: Sequence[str]) -> int:
    """Check what the arguments name, print the report, and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="onbehalf-verify", description="Check a bundle of evidence from `onbehalf audit export`, offline.",
        epilog=_CODES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("bundle", type=Path, help="the zip file")
    parser.add_argument("--key", default="", help="the log's public key: the line in log.pub, got from elsewhere")
    parser.add_argument("--key-file", type=Path, help="the same, in a file")
    parser.add_argument("--kept", type=Path, help="a checkpoint of this log that you kept: was anything taken back?")
    parser.add_argument(
        "--witness", action="append", default=[], help="the vkey of one who must have cosigned, or a file"
    )
    parser.add_argument("--policy", type=Path, help="a policy file (C2SP tlog-policy): its quorum must have cosigned")
    parser.add_argument(
        "--backend", action="append", default=[], metavar="AUDIENCE=FILE",
        help="what a backend itself kept of its calls, one JSON row a line, got from its own people",
    )  # fmt: skip
    parser.add_argument("--replay", action="store_true", help="make opened decisions again; needs the extra `replay`")
    parser.add_argument("--call-tokens", type=Path, help="a file of call tokens that a backend kept, one a line")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES, help="most bytes to unpack (default %(default)s)")
    parser.add_argument(
        "--jobs", type=_jobs, default=_processors(), metavar="N",
        help="processes to check a long log in (default %(default)s); the report is the same",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        key = given.key or (_small(given.key_file).decode("ascii", "replace") if given.key_file else "")
        kept = _small(given.kept) if given.kept else b""
        witnesses = [each if "+" in each else _small(Path(each)).decode("ascii", "replace") for each in given.witness]
        policy = read_policy(_small(given.policy, limit=MAX_POLICY)) if given.policy else None
        backends = [_backend(each) for each in given.backend]
        report = check(
            given.bundle, key=key, kept=kept, witnesses=witnesses, policy=policy, max_bytes=given.max_bytes,
            jobs=given.jobs,
            besides=Besides(replay=given.replay, tokens=given.call_tokens, backends=backends),
        )  # fmt: skip
    except Unusable as error:
        text = "".join(each if each.isprintable() else "?" for each in str(error))
        if given.json:
            print(json.dumps({"verdict": "unusable", "exit": int(Verdict.unusable), "text": text}))
        else:
            print(f"UNUSABLE ({int(Verdict.unusable)}): {text}", file=sys.stderr)
        return int(Verdict.unusable)
    print(json.dumps(report.as_json(), indent=2) if given.json else report.as_text())
    if not report.pinned:
        print(
            "WARNING: no --key was given; the bundle's own key was used, so anyone could have made it", file=sys.stderr
        )
    return int(report.verdict)


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MOST_JOBS):
        raise argparse.ArgumentTypeError(f"expected 1 to {MOST_JOBS}")
    return int(text)


def _processors() -> int:
    """The processors at hand, four at most: more wait for one that unpacks."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, 4)


def _backend(text: str) -> BackendRecord:
    audience, equals, file = text.rpartition("=")
    if not (audience and equals and file):
        raise Unusable(f"`{text}` is no audience and file, such as https://orders.example.com=orders.jsonl")
    return read_rows(audience, Path(file))


def _small(path: Path, *, limit: int = _MAX_NOTE) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Unusable(f"`{path}` cannot be read: {error.strerror}") from error
    if not 0 < len(data) <= limit:
        raise Unusable(f"`{path}` is empty, or too long for what it should be")
    return data


def entry() -> None:
    """The command."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:
        sys.exit(int(Verdict.unusable))


if __name__ == "__main__":
    entry()
