"""How a WSGI server may hand over a body: with a length, ended by itself, or not at all."""

from __future__ import annotations

import io
from typing import Any

import pytest

from onbehalf.backend.wsgi import _body
from onbehalf.errors import BodyMalformed, BodyTooLarge


class Slowly(io.BytesIO):
    """Gives a byte or two at a time, and says how far it was read."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size, 2) if size is not None and size >= 0 else size)


def read(data: bytes, most: int = 10, **environ: Any) -> bytes:
    return _body({"wsgi.input": Slowly(data), **environ}, most)


def test_a_body_is_read_as_far_as_its_length_says_and_no_further() -> None:
    source = Slowly(b"0123456789 and the next request")
    assert _body({"wsgi.input": source, "CONTENT_LENGTH": "10"}, 10) == b"0123456789"
    assert source.tell() == 10
    assert read(b"abc", CONTENT_LENGTH="0") == b""
    assert read(b"abc", CONTENT_LENGTH="") == b""
    assert read(b"abc") == b""


def test_a_body_that_ends_by_itself_is_read_whole_and_bounded() -> None:
    ended = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    assert read(b"0123456789", **ended) == b"0123456789"
    source = Slowly(b"x" * 1000)
    with pytest.raises(BodyTooLarge):
        _body({"wsgi.input": source, **ended}, 10)
    assert source.tell() == 11


@pytest.mark.parametrize("length", ["-1", "+3", "3.0", "0x3", "3, 3", " 3", "٣", "three"])
def test_a_length_that_is_no_plain_number_is_refused(length: str) -> None:
    with pytest.raises(BodyMalformed):
        read(b"abc", CONTENT_LENGTH=length)


def test_two_ways_to_tell_a_length_and_none_where_one_is_needed_are_refused() -> None:
    with pytest.raises(BodyMalformed):
        read(b"abc", CONTENT_LENGTH="3", HTTP_TRANSFER_ENCODING="chunked", **{"wsgi.input_terminated": True})
    with pytest.raises(BodyMalformed):
        read(b"abc", HTTP_TRANSFER_ENCODING="chunked")


def test_a_body_that_is_too_long_is_not_read_and_one_too_short_is_refused() -> None:
    source = Slowly(b"x" * 1000)
    for length in ("11", "9" * 30):
        with pytest.raises(BodyTooLarge):
            _body({"wsgi.input": source, "CONTENT_LENGTH": length}, 10)
    assert source.tell() == 0
    with pytest.raises(BodyMalformed, match="shorter"):
        read(b"abc", CONTENT_LENGTH="4")
