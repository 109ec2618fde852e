"""Asks witnesses to cosign a head of the record (C2SP tlog-witness). Blocks; for commands, never on the way of a call.

A witness that was named by its address alone is not judged: whoever holds its key does, which is the verifier.

Trust: a witness learns the log's name, size and root, and hashes. What it answers is taken as signature lines only.
"""

from __future__ import annotations

import base64
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import IO

from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable
from onbehalf.explain.checkpoint import Head
from onbehalf.explain.cosignature import cosigned
from onbehalf.explain.quorum import Policy

__all__ = ["Ahead", "ask_quorum", "ask_witness"]

_SECONDS = 10
_TRIES = 4
_MAX_ANSWER = 32_768
_ADDRESS = re.compile(r"https://.+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/.*)?")
_LINES = re.compile(r"(?:— [!-*,-~]{1,200} [A-Za-z0-9+/]{1,8000}={0,2}\n){1,8}")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,17})\n")


class Ahead(LedgerCorrupt):
    """A witness has seen more of the log than there is; unless who writes it had a later head cosigned meanwhile.
    `asked` is the size that it was asked about."""

    asked = 0


def ask_witness(url: str, note: str, size: int, proof: Callable[[int], Sequence[bytes]]) -> str:
    """The witness's signature lines for the signed head `note` of `size` leaves.

    `proof` gives the consistency proof from a smaller size. Raises LedgerUnavailable where the witness cannot be
    asked, LedgerCorrupt where it says that this head is no continuation of what it saw, Ahead where it saw more.
    """
    if not _ADDRESS.fullmatch(url):
        raise ConfigInvalid(f"the witness `{url}` is not https", hint="use https; only loopback may be http")
    status, body = _post(url, _request(0, (), note))
    for _ in range(_TRIES):
        if status != 409:
            break
        known = _SIZE.fullmatch(body)
        old = int(known[1]) if known else 0
        if old > size:
            raise _ahead(url, old, size)
        status, body = _post(url, _request(old, proof(old) if 0 < old < size else (), note))
    if status == 422:
        raise LedgerCorrupt(
            f"the witness `{url}` says that this log is no continuation of what it saw ({status})",
            hint="keep the ledger, its keys and the witness's files as they are",
        )
    lines = body.decode("utf-8", "replace")
    if status != 200 or not _LINES.fullmatch(lines):
        raise LedgerUnavailable(
            f"the witness `{url}` did not cosign ({status})", hint="see that it knows this log's key"
        )
    return lines


def ask_quorum(policy: Policy, head: Head, proof: Callable[[int], Sequence[bytes]]) -> list[str]:
    """The signature lines of a policy's witnesses, checked with their keys, as many as there are.

    Raises LedgerUnavailable where they are not enough, LedgerCorrupt as `ask_witness`.
    """
    lines: dict[str, str] = {}
    missing: dict[str, str] = {}
    for each in policy.witnesses:
        try:
            answer = ask_witness(each.url, head.note, head.size, proof) if each.url else ""
        except LedgerUnavailable as error:
            missing[each.name] = error.message
            continue
        found = cosigned(head.note + answer, each.key, head.checkpoint)
        if found is not None:
            lines[each.name] = found[1]
        else:
            missing[each.name] = "it signed with another key" if each.url else "the policy does not say where it is"
    if not policy.met(lines):
        told = "; ".join(f"`{name}`: {why}" for name, why in missing.items())
        raise LedgerUnavailable(
            f"too few witnesses cosigned for the quorum `{policy.quorum}` ({told})",
            hint="see that they are running, or export without them: --unwitnessed",
        )
    return [*lines.values()]


def _ahead(url: str, seen: int, size: int) -> Ahead:
    error = Ahead(
        f"the witness `{url}` has seen {seen} leaves, this log has {size}",
        hint="the log was put back to an older state, or the witness is wrong: keep everything as it is",
    )
    error.asked = size
    return error


def _request(old: int, steps: Sequence[bytes], note: str) -> bytes:
    hashes = "".join(f"{base64.b64encode(step).decode()}\n" for step in steps)
    return f"old {old}\n{hashes}\n{note}".encode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _post(url: str, body: bytes) -> tuple[int, bytes]:
    request = urllib.request.Request(f"{url.rstrip('/')}/add-checkpoint", data=body, method="POST")  # noqa: S310  # see _ADDRESS
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_SECONDS) as answer:
            return answer.status, _bounded(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _bounded(error)
    except (OSError, HTTPException, ValueError) as error:
        raise LedgerUnavailable(
            f"the witness `{url}` cannot be asked: {error}", hint="see that it is running"
        ) from error


def _bounded(answer: IO[bytes]) -> bytes:
    data = answer.read(_MAX_ANSWER + 1)
    return data if len(data) <= _MAX_ANSWER else b""
