"""The HTTP client of the call path against servers on raw sockets: whole answers, broken ones, and none."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.doors import outbound_http
from onbehalf.doors.outbound_http import ConnectFailed, DeadlinePassed, HttpClient, HttpFailed

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nt: u\r\n\r\n"
_TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\nhello"
_INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" + _PLAIN


class Server:
    """Answers each request with the next script, and remembers what came over how many connections."""

    def __init__(self, *scripts: Sequence[bytes] | Speak, close: bool = False) -> None:
        self._scripts = list(scripts)
        self._close = close
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self._scripts:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
                self.requests.append(head + await reader.readexactly(length))
                script = self._scripts.pop(0)
                if callable(script):
                    await script(reader, writer)
                    continue
                for piece in script:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if self._close:
                    return
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended.set()
            writer.close()


@asynccontextmanager
async def serving(server: Speak, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async with await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls) as listening:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/a/b"


async def fetched(
    client: HttpClient, headers: Sequence[tuple[str, str]] = (), body: bytes = b"{}"
) -> tuple[int, bytes]:
    reply = await client.send("POST", headers, body)
    try:
        pieces = []
        while (piece := await reply.piece()) is not None:
            pieces.append(piece)
        return reply.status, b"".join(pieces)
    finally:
        reply.close()


def exchanged(*scripts: Sequence[bytes], close: bool = False, seconds: float = 5) -> list[tuple[int, bytes]]:
    """What a client gets from a server with these scripts."""

    async def run() -> list[tuple[int, bytes]]:
        async with serving(Server(*scripts, close=close)) as url:
            client = HttpClient(url, seconds=seconds)
            try:
                return [await fetched(client) for _ in scripts]
            finally:
                await client.aclose()

    return asyncio.run(run())


def test_a_request_says_what_it_was_given_and_the_connection_is_kept() -> None:
    async def run() -> None:
        server = Server([_PLAIN], [_CHUNKED], [_PLAIN])
        async with serving(server) as url:
            client = HttpClient(url, seconds=5)
            for _ in range(3):
                assert await fetched(client, [("x-one", "1")], b'{"a":1}') == (200, b"hello")
            await client.aclose()
        host = url.removeprefix("http://").removesuffix("/a/b")
        assert server.connections == 1
        assert (
            server.requests
            == [
                b"POST /a/b HTTP/1.1\r\nhost: %b\r\nuser-agent: onbehalf\r\nx-one: 1\r\ncontent-length: 7\r\n\r\n"
                b'{"a":1}' % host.encode()
            ]
            * 3
        )

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(
    answer=st.sampled_from([_PLAIN, _CHUNKED, _TO_THE_END, _INTERIM]), cuts=st.lists(st.integers(0, 130), max_size=8)
)
def test_an_answer_is_the_same_however_it_is_cut(answer: bytes, cuts: list[int]) -> None:
    at = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    pieces = [answer[start:end] for start, end in itertools.pairwise(at)]
    assert exchanged(pieces, close=answer is _TO_THE_END) == [(200, b"hello")]


def test_answers_that_end_their_connection_are_followed_by_a_new_one() -> None:
    closing = _PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    old = _PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert exchanged([closing], [old], [_PLAIN], close=True) == [(200, b"hello")] * 3


def test_a_status_without_a_body_has_none() -> None:
    assert exchanged([b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"], [b"HTTP/1.1 204 No\r\n\r\n"]) == [
        (202, b""),
        (204, b""),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="not HTTP"),
        pytest.param(b"HTTP/2.0 200 OK\r\n\r\n", id="another version"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", id="upgrade"),
        pytest.param(_PLAIN.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n"), id="two lengths"),
        pytest.param(_PLAIN.replace(b"\r\n\r\n", b"\r\ncontent-length: 6\r\n\r\n"), id="length twice"),
        pytest.param(_PLAIN.replace(b"\r\n\r\n", b"\r\nmcp-session-id: a\r\nmcp-session-id: b\r\n\r\n"), id="id twice"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", id="negative length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", id="no chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"content-length: 0\r\n\r\n", id="many headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\na: " + b"b" * 200_000, id="endless header"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello", id="cut short"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", id="last chunk missing"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_no_whole_answer_fails(answer: bytes) -> None:
    with pytest.raises(HttpFailed) as failed:
        exchanged([answer], close=True)
    assert type(failed.value) is HttpFailed  # it may have left, so it is neither of the kinder ones
    assert "hello" not in str(failed.value)


def test_what_nobody_asked_for_is_never_taken_for_an_answer() -> None:
    forged = _PLAIN.replace(b"hello", b"evil!")

    async def run() -> None:
        server = Server([_PLAIN, forged], [_PLAIN], [_PLAIN + forged], [_PLAIN])
        async with serving(server) as url:
            client = HttpClient(url, seconds=5)
            assert await fetched(client) == (200, b"hello")
            await asyncio.sleep(0.05)  # the forged answer comes while nothing is asked
            assert await fetched(client) == (200, b"hello")
            assert await fetched(client) == (200, b"hello")  # the second answer of one piece is dropped with its line
            assert await fetched(client) == (200, b"hello")
            await client.aclose()
        assert server.connections == 3

    asyncio.run(run())


def test_a_deadline_holds_before_and_within_an_answer() -> None:
    for answer in (b"", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello"):
        with pytest.raises(DeadlinePassed):
            exchanged([answer], seconds=0.2)


def test_one_timer_serves_many_exchanges_and_each_has_its_own_time() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = Server(*[[_PLAIN]] * 5, [])
        async with serving(server) as url:
            client = HttpClient(url, seconds=0.4)
            timers = set()
            for _ in range(5):
                await asyncio.sleep(0.05)
                assert await fetched(client) == (200, b"hello")
                timers.add(client._free[0]._timer)
            assert server.connections == 1
            assert len(timers) == 1 or loop.time() > 0.4  # a machine that slow has set it anew
            began = loop.time()
            with pytest.raises(DeadlinePassed):  # the timer goes off while this waits, and is early for it
                await fetched(client)
            assert loop.time() - began >= 0.39
            assert not client._busy
            assert not client._free
            await client.aclose()

    asyncio.run(run())


def test_a_kept_connection_has_no_timer_once_it_went_off_and_one_again_with_the_next_exchange() -> None:
    async def run() -> None:
        async with serving(Server([_PLAIN], [])) as url:
            client = HttpClient(url, seconds=0.1)
            assert await fetched(client) == (200, b"hello")
            (kept,) = client._free
            while kept._timer is not None:
                await asyncio.sleep(0.01)
            assert kept.usable
            with pytest.raises(DeadlinePassed):
                await fetched(client)
            await client.aclose()

    asyncio.run(run())


def test_a_connection_that_ends_takes_its_timer_with_it() -> None:
    async def run() -> None:
        async with serving(Server([_PLAIN], [_PLAIN], close=True)) as url:
            client = HttpClient(url, seconds=300)
            assert await fetched(client) == (200, b"hello")
            (kept,) = client._free
            timer = kept._timer
            assert timer is not None
            while kept.usable:
                await asyncio.sleep(0.01)
            while not timer.cancelled():
                await asyncio.sleep(0.01)
            await client.aclose()

    asyncio.run(run())


def test_an_answer_that_was_held_up_and_not_read_is_not_followed_on_the_same_connection() -> None:
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 400000\r\n\r\n" + b"x" * 400_000

    async def run() -> None:
        server = Server([large], [_PLAIN])
        async with serving(server) as url:
            client = HttpClient(url, seconds=5)
            reply = await client.send("POST", (), b"")
            while reply.size < outbound_http._AHEAD_BYTES:
                await asyncio.sleep(0.01)
            reply.close()
            assert await fetched(client) == (200, b"hello")
            await client.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("limit", [4, 5])
@pytest.mark.parametrize("answer", [[_PLAIN], [_PLAIN[:-2], _PLAIN[-2:]], [_CHUNKED], [_CHUNKED[:60], _CHUNKED[60:]]])
def test_a_body_is_whole_or_larger_than_asked_for(answer: Sequence[bytes], limit: int) -> None:
    async def run() -> bytes | None:
        async with serving(Server(answer)) as url:
            client = HttpClient(url, seconds=5)
            reply = await client.send("GET", ())
            try:
                return await reply.whole(limit)
            finally:
                reply.close()
                await client.aclose()

    assert asyncio.run(run()) == (b"hello" if limit == 5 else None)


def test_one_head_serves_many_requests_each_with_headers_of_its_own() -> None:
    async def run() -> None:
        server = Server([_PLAIN], [_PLAIN])
        async with serving(server) as url:
            client = HttpClient(url, seconds=5)
            head = client.head("POST", [("x-one", "1")])
            for number in "12":
                reply = await client.post(head, [("x-two", number)], b"{}")
                assert await reply.whole(9) == b"hello"
                reply.close()
            with pytest.raises(ValueError, match="visible ASCII"):
                await client.post(head, [("x-two", "a\r\nx-evil: 1")], b"{}")
            await client.aclose()
        lines = [request.split(b"\r\n")[3:] for request in server.requests]
        assert lines == [[b"x-one: 1", b"x-two: %b" % n, b"content-length: 2", b"", b"{}"] for n in (b"1", b"2")]

    asyncio.run(run())


def test_where_nobody_listens_nothing_is_sent() -> None:
    async def run() -> None:
        async with serving(Server()) as url:
            pass
        client = HttpClient(url, seconds=5)
        with pytest.raises(ConnectFailed):
            await fetched(client)
        await client.aclose()
        with pytest.raises(ConnectFailed):
            await fetched(client)

    asyncio.run(run())


@pytest.mark.parametrize(
    "value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b", "é", "a\x7f", "a\u2028b", "a\tb", "\ud800"]
)
def test_a_header_cannot_bring_another(value: str) -> None:
    async def run() -> None:
        server = Server([_PLAIN])
        async with serving(server) as url:
            client = HttpClient(url, seconds=5)
            with pytest.raises(ValueError, match="visible ASCII"):
                await fetched(client, [("x", value)])
            await client.aclose()
        assert server.requests == []

    asyncio.run(run())


def test_a_connection_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound_http, "_IDLE_SECONDS", 0.0)

    async def run() -> None:
        server = Server([_PLAIN], [_PLAIN])
        async with serving(server) as url:
            client = HttpClient(url, seconds=5)
            assert [await fetched(client) for _ in range(2)] == [(200, b"hello")] * 2
            await client.aclose()
        assert server.connections == 2

    asyncio.run(run())


def test_a_cancelled_exchange_closes_its_connection() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> None:
        server = Server(silent)
        async with serving(server) as url:
            client = HttpClient(url, seconds=30)
            task = asyncio.create_task(fetched(client))
            while not server.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(server.ended.wait(), 5)
            await client.aclose()

    asyncio.run(run())


def test_an_answer_left_before_its_end_is_not_followed_on_the_same_connection() -> None:
    async def run() -> None:
        server = Server([_PLAIN[:-2]], [_PLAIN])
        async with serving(server) as url:
            client = HttpClient(url, seconds=5)
            reply = await client.send("POST", (), b"")
            assert await reply.piece() == b"hel"
            reply.close()
            assert await fetched(client) == (200, b"hello")
            await client.aclose()
        assert server.connections == 2

    asyncio.run(run())


def test_a_body_that_nobody_reads_does_not_fill_memory() -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 400000000\r\n\r\n")
        while sent < 400_000_000:
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async def run() -> None:
        async with serving(Server(flood)) as url:
            client = HttpClient(url, seconds=30)
            reply = await client.send("POST", (), b"")
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 30_000_000  # what the two kernels' buffers hold, and ours
            size = 0
            while size < 40_000_000:
                size += len(await reply.piece() or b"")
            reply.close()
            await client.aclose()

    asyncio.run(run())


def _certificate(directory: Path, *names: x509.GeneralName) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for these names, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = directory / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=pem)


def test_tls_is_checked_against_the_trust_store_and_the_name(tmp_path: Path) -> None:
    right = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))

    async def run() -> None:
        tls, trusting = _certificate(tmp_path, right)
        async with serving(Server([_PLAIN], [_CHUNKED]), tls=tls) as url:
            client = HttpClient(url, seconds=5, tls=trusting)
            assert [await fetched(client) for _ in range(2)] == [(200, b"hello")] * 2
            await client.aclose()
            stranger = HttpClient(url, seconds=5)  # the platform's trust store does not know it
            with pytest.raises(ConnectFailed):
                await fetched(stranger)
        tls, trusting = _certificate(tmp_path, x509.DNSName("elsewhere.test"))
        server = Server([_PLAIN])
        async with serving(server, tls=tls) as url:
            with pytest.raises(ConnectFailed):
                await fetched(HttpClient(url, seconds=5, tls=trusting))
        assert server.requests == []

    asyncio.run(run())


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "/path", "http://h/a b", "http://h/é"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        HttpClient(url, seconds=5)
