"""A record as a line of ArcSight's Common Event Format (version 0, extension dictionary 1.2).

A line with short fields cannot hold a record: it carries where the record is (log, index, ids, leaf hash), who, what
and how it ended, the digest of the record's JSON line, and in `msg` how many facts it leaves out. Must not hold syslog.
"""

from __future__ import annotations

from onbehalf.explain.views import View, json_line
from onbehalf.explain.views_said import Said, said
from onbehalf.model import digest

__all__ = ["cef", "read_cef"]

_MOST = {
    "act": 63, "app": 31, "cs1": 4000, "cs2": 4000, "cs3": 4000, "cs4": 4000, "cs5": 4000, "cs6": 4000,
    "deviceExternalId": 255, "externalId": 40, "fname": 1023, "msg": 1023, "outcome": 63, "reason": 1023, "sproc": 1023,
    "requestClientApplication": 1023, "sourceServiceName": 1023, "spid": 1023, "suid": 1023, "suser": 1023,
}  # fmt: skip
"""The dictionary's lengths, in characters."""
_LABELS = {
    "cn1Label": "logIndex", "cs1Label": "leafHash", "cs2Label": "logOrigin", "cs3Label": "call",
    "cs4Label": "recordDigest", "cs5Label": "tenant", "cs6Label": "client",
}  # fmt: skip
_HEADER = 7


def cef(view: View, *, version: str) -> str:
    """The line, without a line's end and without any line break in it. `version` is the gateway's."""
    flat = said(view)
    head = ["CEF:0", "onbehalf", "gateway", version, view.leaf.kind, _name(flat), str(_severity(flat))]
    fields = {
        "rt": str(view.leaf.at * 1000),
        "cn1": str(view.index),
        "cs1": view.hash,
        "cs2": view.log,
        "cs3": flat.call,
        "cs4": digest(json_line(view)),
        "cs5": flat.tenant,
        "cs6": flat.client,
        "externalId": view.leaf.id,
        "suid": flat.person,
        "suser": flat.subject or flat.reader,
        "sproc": flat.command,
        "fname": flat.tool,
        "sourceServiceName": flat.upstream,
        "requestClientApplication": flat.agent,
        "act": {"allow": "allowed", "deny": "blocked", "ask": "asked"}.get(flat.effect, ""),
        "outcome": flat.status,
        "reason": flat.code,
        "msg": _left_out(view),
    }
    kept = {name: value for name, value in fields.items() if value}
    labels = {name: label for name, label in _LABELS.items() if name.removesuffix("Label") in kept}
    told = " ".join(f"{name}={_value(value, _MOST.get(name, 1023))}" for name, value in (kept | labels).items())
    return "|".join(_head(each) for each in head) + "|" + told


def read_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """Header and extension of a line, unescaped. Raises ValueError for what is no such line."""
    head: list[str] = []
    part, rest = "", iter(line)
    for each in rest:
        if each == "\\":
            part += next(rest, "")
        elif each == "|":
            head.append(part)
            part = ""
            if len(head) == _HEADER:
                break
        else:
            part += each
    if len(head) != _HEADER or head[0] != "CEF:0":
        raise ValueError("not a CEF line")
    return head, _extension("".join(rest))


def _extension(text: str) -> dict[str, str]:
    """`key=value` pairs: a key is what stands between the last blank and an `=` that is not escaped."""
    found: dict[str, str] = {}
    name, word = "", ""
    rest = iter(text)
    for each in rest:
        if each == "\\":
            after = next(rest, "")
            word += {"n": "\n", "r": "\r"}.get(after, after)
        elif each == "=":
            value, _, key = word.rpartition(" ")
            if name:
                found[name] = value
            name, word = key, ""
        else:
            word += each
    if name:
        found[name] = word
    return found


def _name(flat: Said) -> str:
    words = (flat.kind, "of", flat.tool) if flat.tool else (flat.kind,)
    return " ".join(words)[:500]


def _severity(flat: Said) -> int:
    """Of 0 to 10."""
    if flat.status == "unknown":
        return 7
    return 5 if flat.effect == "deny" or flat.status == "failed" else 2


def _left_out(view: View) -> str:
    if view.erased:
        return "the payload is erased or sealed"
    return f"{len(view.leaf.facts)} facts are on record; this line is a summary of them"


def _head(text: str) -> str:
    """A header field: `|` and `\\` escaped, and on one line."""
    return _one_line(text).replace("\\", "\\\\").replace("|", "\\|")


def _value(text: str, most: int) -> str:
    """An extension value: `=` and `\\` escaped; the length is that of what is meant, before escaping."""
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return _one_line(shown).replace("\\", "\\\\").replace("=", "\\=").strip(" ")


def _one_line(text: str) -> str:
    # the format knows an escaped line break in a value; one that was never written cannot be read wrongly
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
