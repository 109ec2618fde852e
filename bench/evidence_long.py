"""A bundle of very many leaves, written without a ledger: checking it takes no more memory than checking a small one.

    bench/evidence_long.py [--leaves 10000000] [--jobs 1]

Leaves are the gateway's own, made once for a few calls; then call, time, number and intent are set for each call, and
commitments come again. So the tree, the pairing and the numbers are as in any log, and the file is small: it says
nothing of speed, which evidence.py measures. 64 calls are under way at any time. Memory is the most that any one
process of the check had.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from evidence import ORIGIN, _intent, _outcome
from onbehalf.explain import evidence, leaf, tree
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, write

_UNDER_WAY = 64
_CHECK = """
import resource, sys, time
from pathlib import Path
from onbehalf.verifier.check import check
begun = time.perf_counter()
report = check(Path(sys.argv[1]), key=sys.argv[2], jobs=int(sys.argv[3]))
spent = time.perf_counter() - begun
assert not report.findings and report.end == int(sys.argv[4]), report.findings[:3]
own = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
most = [int(own.split()[1]) / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]
print(f"{report.end:,} leaves: {most[0]:.0f} MB, and {most[1]:.0f} MB for each further process, in {spent:.0f} s")
"""


def _templates() -> tuple[list[bytes], list[bytes]]:
    """Intents and outcomes of a few calls, all with the numbers of call 0."""
    call = f"call_{0:032x}"
    made: tuple[list[bytes], list[bytes]] = ([], [])
    for number in range(8):
        for lines, entry, place in (
            (made[0], _intent(number), ("0123456789abcdef", 1)), (made[1], _outcome(number, 0), ("", 0)),
        ):  # fmt: skip
            line = leaf.make(leaf.spell(entry), id_=f"{number:032x}", salt=os.urandom(32), place=place).leaf
            lines.append(line.replace(entry.call.encode(), call.encode()))
    return made


def _calls(leaves: int) -> Iterator[bytes]:
    """Groups of intents, each followed by the outcomes of those before it."""
    intents, outcomes = _templates()
    none = f"call_{0:032x}".encode()
    intents = [b'{"at":%d,' + each[each.index(b",") + 1 :].replace(b'"n":1,', b'"n":%d,') for each in intents]
    outcomes = [b'{"at":%d,' + each[each.index(b",") + 1 :].replace(b'"of":0,', b'"of":%d,') for each in outcomes]
    intents, outcomes = ([each.replace(none, b"call_%032x") for each in lines] for lines in (intents, outcomes))
    for group in range(0, leaves // 2, _UNDER_WAY):
        numbers = range(group, min(group + _UNDER_WAY, leaves // 2))
        for number in numbers:
            yield intents[number % 8] % (1_700_000_000 + number, number, number + 1)
        for number in numbers:
            yield outcomes[number % 8] % (1_700_000_000 + number, number, group + number)


def _bundle(path: Path, leaves: int) -> str:
    """Write the bundle. The log's key."""
    signer, summary, frontier = NoteSigner(ORIGIN, os.urandom(32)), evidence.Summary(), tree.Frontier()
    files: dict[str, tuple[str, int]] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        hash_, length = sha256(), 0
        with packed.open("leaves.jsonl", "w", force_zip64=True) as file:
            for index, line in enumerate(_calls(leaves)):
                summary.take(index, leaf.read(line))
                frontier.append(tree.leaf_hash(line))
                hash_.update(line + b"\n")
                length += len(line) + 1
                file.write(line + b"\n")
        files["leaves.jsonl"] = hash_.hexdigest(), length
        vkey = signer.verifier.vkey
        head = write(Checkpoint(origin=ORIGIN, size=frontier.size, root=frontier.root()), signer)
        for name, data in (
            ("checkpoint", head.encode()), ("keys.json", b'{"log":"%b"}' % vkey.encode()),
            ("proof.json", b'{"left":[],"right":[],"start":[]}'),
        ):  # fmt: skip
            packed.writestr(name, data)
            files[name] = sha256(data).hexdigest(), len(data)
        said = evidence.manifest(
            origin=ORIGIN, size=frontier.size, span=(0, frontier.size), asked={}, whole=False, erased=0,
            summary=summary, files=files,
        )  # fmt: skip
        packed.writestr("manifest.json", said)
    return vkey


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--leaves", type=int, default=10_000_000)
    reader.add_argument("--jobs", type=int, default=1)
    asked = reader.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for leaves in (asked.leaves // 100, asked.leaves):
            path = Path(scratch) / f"{leaves}.zip"
            begun = time.monotonic()
            vkey = _bundle(path, leaves - leaves % 2)
            sys.stdout.write(f"written in {time.monotonic() - begun:.0f} s, {path.stat().st_size >> 20} MiB\n")
            arguments = [str(path), vkey, str(asked.jobs), str(leaves - leaves % 2)]
            sys.stdout.flush()
            subprocess.run([sys.executable, "-c", _CHECK, *arguments], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
