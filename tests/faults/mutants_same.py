"""Mutants that do what the file does: no test could see them. By file, source line and change, with the reason.

An entry names a line by its text, so that it ends when the line changes. Not for what is merely hard to test.
"""

from __future__ import annotations

__all__ = ["SAME"]

_LENGTHS = "the lengths are compared above it"
_SHORT = "whoever asks looks at the length of what comes, and one byte is no length that passes"
_NEGATIVE = "it is negative or behind the head, which is longer than any of these numbers"
_NO_MATCH = "where there is no match it is refused, whatever the bytes are"
_AT_ONCE = "how much is read at once; the bytes are the same"
_ENDED = "a key ends at 1 leaf or later, else it is -1"
_SHORTER = "of no line the length is 0, and 1 is no more than the longest either"

SAME: dict[tuple[str, str, str], str] = {
    (
        "verifier/merkle.py",
        "return [1 << bit for bit in range(index.bit_length() - 1, -1, -1) if index >> bit & 1]",
        "Sub to Add",
    ): "bits above the highest are 0, and left out",
    ("verifier/merkle.py", "self._subtrees = list(zip(sizes, left, strict=True))", "True to False"): _LENGTHS,
    ("verifier/merkle.py", "self.join(zip(sizes, right, strict=True))", "True to False"): _LENGTHS,
    (
        "verifier/leaves.py",
        "alike = all("
        "each is not None and each.call == call for each, call in zip(waiting, mine.values(), strict=True))",
        "True to False",
    ): "there is one of each",
    (
        "verifier/merkle.py",
        'level = [sha256(b"\\1" + left + right).digest() for left, right in zip(each, each, strict=True)]',
        "True to False",
    ): "an odd one was taken away above it",
    ("verifier/note.py", 'key = decoded(found[3]) if found else b""', "bytes changed"): _NO_MATCH,
    ("verifier/note.py", 'signature = decoded(found[2]) if found else b""', "bytes changed"): _NO_MATCH,
    ("verifier/note.py", 'root = decoded(said[2]) if len(said) == 4 else b""', "bytes changed"): _SHORT,
    ("verifier/note.py", 'return b""', "bytes changed"): _SHORT,
    ("verifier/note.py", 'return data if base64.b64encode(data).decode() == text else b""', "bytes changed"): _SHORT,
    ("verifier/note.py", "data = base64.b64decode(text, validate=True)", "True to False"): (
        "what is left out in reading is missing when it is written again, and that is compared"
    ),
    ("verifier/cosign.py", 'key = decoded(found[3]) if found else b""', "bytes changed"): _NO_MATCH,
    ("verifier/strict.py", 'if text.count("[") + text.count("{") > depth:', "Gt to GtE"): (
        "it only spares counting where so few brackets could not nest too deep"
    ),
    ("verifier/archive.py", "_CHUNK, _BLOCK = 1 << 18, 1 << 20", "1 to 2"): _AT_ONCE,
    ("verifier/archive.py", "_CHUNK, _BLOCK = 1 << 18, 1 << 20", "18 to 19"): _AT_ONCE,
    ("verifier/archive.py", "_CHUNK, _BLOCK = 1 << 18, 1 << 20", "20 to 21"): _AT_ONCE,
    ("verifier/archive.py", "begun, length = list[bytes](), 0", "0 to 1"): _AT_ONCE,
    ("verifier/policy.py", '_once(publics, b"witness", key.public)', "bytes changed"): (
        "a mark by which keys of witnesses are told from those of logs, and counted"
    ),
    ("verifier/silence.py", "if type(every) is int and 0 < every <= 3600:", "Lt to LtE"): "0 is the least there is",
    (
        "verifier/sample.py",
        "elif rank > self._ranks[0][0]:",
        "Gt to GtE",
    ): "two ranks are one only where SHA-256 breaks",
    (
        "verifier/backend_rows.py",
        'for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE + 1), b""), start=1):',
        "1 to 2",
    ): "one byte more of a line that is refused for its length",
    ("verifier/receipts.py", 'public = decoded(x) if isinstance(x, str) else b""', "bytes changed"): _SHORT,
    ("verifier/command.py", "data = file.read(limit + 1)", "1 to 2"): "one byte more of a file that is refused for it",
    ("verifier/archive.py", "tail = file.read(98)", "98 to 99"): "the file ends there",
    ("verifier/archive.py", "self._zip.close()", "left out: self._zip.close()"): (
        "it was given the file, and so does not close it; the line after it does"
    ),
    ("verifier/opened.py", "return index, values, -1", "1 to 2"): "only of an erased leaf it is read",
    (
        "verifier/leaves.py",
        "return {name: each.decode() for name, each in zip(self.names, self.commitments, strict=True)}",
        "True to False",
    ): "a leaf is read with as many commitments as names",
    ("verifier/leaves.py", 'end = line.find(b"}", head.end()) if head is not None else -1', "1 to 2"): _NEGATIVE,
    ("verifier/leaves.py", "tail = _TAIL.fullmatch(line, end) if end >= 0 else None", "GtE to Gt"): _NEGATIVE,
    ("verifier/leaves.py", "tail = _TAIL.fullmatch(line, end) if end >= 0 else None", "0 to 1"): _NEGATIVE,
    ("verifier/opened.py", "if index < found.index:", "Lt to LtE"): "the same index does not come here",
    ("verifier/archive.py", "with ThreadPoolExecutor(1) as ahead:", "1 to 2"): "one piece at a time is asked for",
    (
        "verifier/archive.py",
        "for chunk in _ahead(file, hash_.update) if info.file_size > _CHUNK else _each(file, hash_.update):",
        "Gt to GtE",
    ): "both give the same pieces",
    (
        "verifier/runs.py",
        "return Examined(merkle.pieces(start, hashes), [Run(len(lines))], max(map(len, lines), default=0) > MAX_LEAF)",
        "0 to 1",
    ): _SHORTER,
    (
        "verifier/runs.py",
        "if len(data) > MAX_LEAF and max(map(len, lines), default=0) > MAX_LEAF:",
        "0 to 1",
    ): _SHORTER,
    ("verifier/runs.py", "gap_at = -1", "1 to 2"): "it is told only with a gap, which sets it",
    ("verifier/runs.py", "if channel is None or number is None:", "Or to And"): "a leaf has both or neither",
    ("verifier/runs.py", "of = -1 if of_text is None else int(of_text)", "1 to 2"): "both are negative",
    ("verifier/walk.py", "self._last = 0", "0 to 1"): "it is told only after a first leaf, which sets it",
    ("verifier/complete.py", "if len(self.problems) < _LISTED:", "Lt to LtE"): (
        "a statement lists no more either, and counts this one with the others"
    ),
    (
        "verifier/complete.py",
        "first, last = numbers if isinstance(numbers, list) and len(numbers) == 2 else (0, 0)",
        "0 to 1",
    ): "numbers begin at 1, so 1 says as little against a comparison as 0",
    (
        "verifier/complete.py",
        'texts = {name: text for name, text in texts.items() if text.count("[") + text.count("{") > _DEPTH}',
        "Gt to GtE",
    ): "so few brackets nest no deeper, and that it is JSON was seen before",
    ("verifier/handovers.py", "size = int(said[1]) if said else 0", "0 to 1"): "such a note is no head by any key",
    ("verifier/handovers.py", "if each.index < size and _signs(note, each.before.key):", "Lt to LtE"): (
        "of that size the key before this change was tried first"
    ),
    (
        "verifier/handovers.py",
        "place = next((at for at, each in enumerate(chain) if each.key.text == given.key.text), -1)",
        "1 to 2",
    ): "both are negative",
    (
        "verifier/handovers.py",
        'if leaf.kind != "key_change" or not hmac.compare_digest(made.encode(), leaf.commitment("log_key") or b"-"):',
        "bytes changed",
    ): "it is held against 64 hex digits or none, and is neither",
    ("verifier/past_heads.py", "if ended >= 0:", "GtE to Gt"): _ENDED,
    ("verifier/past_heads.py", "if ended >= 0:", "0 to 1"): _ENDED,
    ("verifier/tokens.py", "for number in range(1, _MAX_TOKENS + 2):", "2 to 3"): (
        "the first line too many is refused, whatever would come after it"
    ),
    ("verifier/tokens.py", "line = file.readline(_MAX_LINE + 1)", "1 to 2"): (
        "one byte more of a line that is refused for its length"
    ),
    ("verifier/check.py", "if ended >= 0:", "GtE to Gt"): _ENDED,
    ("verifier/check.py", "if ended >= 0:", "0 to 1"): _ENDED,
    ("verifier/check.py", "elif head.size > end.size:", "Gt to GtE"): "of one size the roots were compared above it",
    ("doors/ledger_settled.py", "_STEP = 1 << 20", "1 to 2"): "how much is written at once; the bytes are the same",
    ("doors/ledger_settled.py", "_STEP = 1 << 20", "20 to 21"): "how much is written at once; the bytes are the same",
    ("doors/ledger_settled.py", "if end < os.fstat(handle).st_size:", "Lt to LtE"): "it is cut to the length it has",
    ("doors/ledger_settled.py", "for word, next_word in zip(words, words, strict=True):", "True to False"): (
        "heads and pages have whole pairs of words: other sizes of a page are refused above it"
    ),
    (
        "doors/ledger_settled.py",
        "if not order or [*total] != expected or not 512 <= page <= 65_536 or page & (page - 1):",
        "65536 to 65537",
    ): "65,537 is no power of two",
    (
        "doors/ledger_settled.py",
        "if not order or [*total] != expected or not 512 <= page <= 65_536 or page & (page - 1):",
        "1 to 2",
    ): "an odd size has the bit of 1 in both then, and of an even one it asks the same of its half",
    ("doors/ledger_sqlite.py", "at = now() if self.recovered else UnixTime(0)", "0 to 1"): (
        "it is the time of records that there are none of"
    ),
    (
        "verifier/ed25519.py",
        "if not _of_large_order(public) or not _of_large_order(signature[:32]):",
        "32 to 33",
    ): "of the number only the bits of the first 32 bytes are looked at",
}
