"""Hostile requests over real sockets: answered with 4xx or closed, in time, in bounded memory."""

import contextlib
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator

import psutil
import pytest
import zstandard

from ingest_gateway.connection import Connection
from ingest_gateway.settings import Settings
from schemas.limits import BODY_BYTES_MAX
from sockets import connection
from sockets.connection import Limits
from tests.ingest_gateway.serving import EVENT, Served, Wire, served

MIB = 1 << 20
WITHOUT_KEY = b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(Settings(data_dir=tmp_path_factory.mktemp("gateway"))) as running:
        yield running


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of a second or so."""
    short = Limits(
        head_s=0.4, body_s=1.2, body_silence_s=0.8, body_grace_s=0.4, unread_s=0.5, idle_s=0.6
    )
    monkeypatch.setattr(Connection, "limits", short)
    monkeypatch.setattr(connection, "FLUSH_S", 0.5)
    monkeypatch.setattr(connection, "LOOK_S", 0.05)


def refused(gateway: Served, request: bytes) -> tuple[int, str]:
    """The status and code of the answer, after which the connection has to be closed."""
    with Wire(gateway.port) as wire:
        wire.send(request)
        answer = wire.answer()
        assert answer is not None
        wire.closed_after()
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert gateway.healthy()
    return answer.status, answer.body["errors"][0]["code"] if answer.body["errors"] else (
        answer.body["code"]
    )


# What is not one request


@pytest.mark.parametrize(
    "request_line",
    [b"GET /v1/events\r\n\r\n", b"POST /v1/events HTTP/0.9\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n"],
    ids=["http_0_9", "http_0_9_named", "http_2"],
)
def test_another_version_of_http_is_400(gateway: Served, request_line: bytes) -> None:
    assert refused(gateway, request_line) == (400, "invalid_http")


SMUGGLING = {
    "cl_te": [b"Content-Length: 4", b"Transfer-Encoding: chunked"],
    "te_cl": [b"Transfer-Encoding: chunked", b"Content-Length: 4"],
    "te_te": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
    "te_unknown": [b"Transfer-Encoding: xchunked"],
    "te_identity": [b"Transfer-Encoding: identity"],
    "te_space_before_colon": [b"Transfer-Encoding : chunked"],
    "te_vertical_tab": [b"Transfer-Encoding: \x0bchunked"],
    "te_folded": [b"Transfer-Encoding:\r\n chunked"],
    "cl_cl": [b"Content-Length: 4", b"Content-Length: 5"],
    "cl_list": [b"Content-Length: 4, 4"],
    "cl_plus": [b"Content-Length: +4"],
    "cl_hex": [b"Content-Length: 0x4"],
    "cl_negative": [b"Content-Length: -4"],
    "cl_overflow": [b"Content-Length: 99999999999999999999999"],
    "two_hosts": [b"Content-Length: 4", b"Host: other"],
    "nul_in_header": [b"Content-Length: 4", b"X: a\0b"],
    "bare_cr_in_header": [b"Content-Length: 4", b"X: a\rY: b"],
}


@pytest.mark.parametrize("headers", SMUGGLING.values(), ids=SMUGGLING)
def test_what_two_servers_may_read_differently_is_400(
    gateway: Served, headers: list[bytes]
) -> None:
    hidden = b"0\r\n\r\n" + gateway.head(length=len(EVENT)) + EVENT
    before = len(gateway.log.records)
    assert refused(gateway, gateway.head(*headers) + hidden) == (400, "invalid_http")
    assert len(gateway.log.records) == before + 1  # of the healthy request that follows


def test_chunks_without_a_version_that_has_them_or_a_host_are_400(gateway: Served) -> None:
    old = gateway.head(b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert refused(gateway, old + b"0\r\n\r\n") == (400, "invalid_http")
    without = gateway.head(length=0).replace(b"Host: gateway\r\n", b"")
    assert refused(gateway, without) == (400, "invalid_http")


@pytest.mark.parametrize(
    "chunks",
    [
        b"-1\r\nab\r\n",
        b"FFFFFFFFFFFFFFFFF\r\nab",
        b"2\nab\n0\n\n",
        b"2\r\nabc\r\n0\r\n\r\n",
        b"zz\r\n",
    ],
    ids=["negative", "overflow", "bare_lf", "longer_than_said", "no_number"],
)
def test_broken_chunks_are_400(gateway: Served, chunks: bytes) -> None:
    request = gateway.head(b"Transfer-Encoding: chunked") + chunks
    assert refused(gateway, request) == (400, "invalid_http")


@pytest.mark.parametrize(
    "rubbish", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", bytes(100)], ids=["tls", "nul"]
)
def test_what_is_no_http_is_400(gateway: Served, rubbish: bytes) -> None:
    assert refused(gateway, rubbish) == (400, "invalid_http")
    assert refused(gateway, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n") == (400, "invalid_http")
    assert refused(gateway, b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n") == (400, "invalid_http")


def test_rubbish_behind_a_request_comes_after_its_answer(gateway: Served) -> None:
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=len(EVENT)) + EVENT + b"\x00rubbish\r\n\r\n")
        first = wire.answer()
        assert first is not None and first.status == 202
        wire.closed_after()


# Heads


def test_headers_of_more_than_64_kib_are_431(gateway: Served) -> None:
    fits = b"X: " + b"x" * (63 << 10)
    assert gateway.post(EVENT, fits).status == 202
    for large in (b"X: " + b"x" * (64 << 10), b"X: " + b"x" * (5 << 20)):
        assert refused(gateway, gateway.head(large, length=0)) == (431, "headers_too_large")
    unfinished = gateway.head(b"X: " + b"x" * (5 << 20))[:-4]
    assert refused(gateway, unfinished) == (431, "headers_too_large")
    path = b"/v1/events?" + b"x" * (64 << 10)
    assert refused(gateway, gateway.head(path=path, length=0))[0] == 431


@pytest.mark.parametrize("first", [1000, 60_000, 66_000, 131_000, 199_000])
def test_they_are_431_however_they_are_cut(gateway: Served, first: int) -> None:
    for large in (gateway.head(path=b"/" + b"x" * 200_000), gateway.head(b"X: " + b"x" * 200_000)):
        with Wire(gateway.port) as wire:
            wire.send(large[:first])
            time.sleep(0.05)
            wire.send(large[first:])
            answer = wire.answer()
            assert answer is not None and answer.status == 431


@pytest.mark.parametrize("target", [b"http://[", b"http://", b"//", b"a:b:c", b"*"])
def test_an_address_that_is_none_is_400_or_404(gateway: Served, target: bytes) -> None:
    with Wire(gateway.port) as wire:
        for _ in range(2):  # the second time behind a request that was answered
            wire.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target)
            answer = wire.answer()
            assert answer is not None and answer.status in (400, 404)
            if answer.headers.get("connection") == "close":
                break
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=len(EVENT)) + EVENT)
        answer = wire.answer()
        assert answer is not None and answer.status == 202
        wire.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target)
        answer = wire.answer()
        assert answer is not None and answer.status in (400, 404)


def test_more_than_100_headers_are_431(gateway: Served) -> None:
    assert gateway.post(EVENT, *[b"X: y"] * 90).status == 202
    assert refused(gateway, gateway.head(*[b"X: y"] * 101)) == (431, "headers_too_large")


def test_an_offer_to_upgrade_is_ignored_and_the_body_read(gateway: Served) -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAM")
    with Wire(gateway.port) as wire:
        for _ in range(3):
            head = gateway.head(*offer, length=len(EVENT))
            wire.send(head + EVENT[:7])
            time.sleep(0.01)
            wire.send(EVENT[7:])
            answer = wire.answer()
            assert answer is not None and answer.status == 202
        wire.send(3 * (gateway.head(*offer, length=len(EVENT)) + EVENT))
        for _ in range(3):
            answer = wire.answer()
            assert answer is not None and answer.status == 202
        websocket = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: AA")
        wire.send(gateway.head(*websocket, length=len(EVENT)) + EVENT)
        answer = wire.answer()
        assert answer is not None and answer.status == 202


def test_expect_is_answered_100_only_when_the_body_is_wanted(gateway: Served) -> None:
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(b"Expect: 100-continue", length=len(EVENT)))
        go_on = wire.answer()
        assert go_on is not None and go_on.status == 100
        wire.send(EVENT)
        answer = wire.answer()
        assert answer is not None and answer.status == 202
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(b"Expect: 100-continue", length=BODY_BYTES_MAX + 1))
        answer = wire.answer()
        assert answer is not None and answer.status == 413
    assert gateway.post(EVENT, b"Expect: something-else").status == 202


# Bodies


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"


def test_chunks_without_a_length_are_read_whole(gateway: Served) -> None:
    head = gateway.head(b"Transfer-Encoding: chunked")
    trailers = b"X-Trailer: y\r\nx-api-key: other\r\n\r\n"
    for body in (chunked(EVENT, 1), chunked(EVENT, 7), chunked(EVENT, 99)[:-2] + trailers):
        with Wire(gateway.port) as wire:
            wire.send(head + body)
            answer = wire.answer()
            assert answer is not None and answer.status == 202
    assert gateway.log.records[-1].value == EVENT


def test_a_body_of_ten_mebibytes_and_one_byte_is_413(gateway: Served) -> None:
    event = b'{"event_name":"a","external_customer_id":"c","properties":{"x":"%s"}}'
    events = b",".join([event % (b"x" * 900_000)] * 11)
    whole = b'{"events":[' + events + b"]}"
    whole += b" " * (BODY_BYTES_MAX - len(whole))
    assert len(whole) == BODY_BYTES_MAX
    assert gateway.post(whole, path=b"/v1/events/bulk").status == 202
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=BODY_BYTES_MAX + 1))
        answer = wire.answer()  # by its length alone
        assert answer is not None and answer.status == 413
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(b"Transfer-Encoding: chunked") + chunked(whole + b" ", 1 << 16))
        answer = wire.answer()
        assert answer is not None and answer.status == 413


def test_a_body_shorter_than_its_length_is_408_and_a_longer_one_the_next_request(
    gateway: Served, hurried: None
) -> None:
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=len(EVENT) + 1) + EVENT)
        answer = wire.answer()
        assert answer is not None and answer.status == 408
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=len(EVENT) - 1) + EVENT)
        answer = wire.answer()
        assert answer is not None and answer.status == 400
        rest = wire.answer()  # "}" is no request
        assert rest is None or rest.status == 400
    before = len(gateway.log.records)
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=len(EVENT) + 1) + EVENT)
        wire.socket.shutdown(socket.SHUT_WR)
        wire.answer()
    assert len(gateway.log.records) == before


def bomb(encoding: str) -> bytes:
    """Ten gigabytes in less than ten megabytes: the same piece of a stream, again and again."""
    if encoding == "zstd":
        return zstandard.compress(bytes(64 * MIB)) * 160
    stream = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    begin = stream.compress(bytes(MIB)) + stream.flush(zlib.Z_FULL_FLUSH)
    piece = stream.compress(bytes(MIB)) + stream.flush(zlib.Z_FULL_FLUSH)
    return begin + piece * ((BODY_BYTES_MAX - len(begin)) // len(piece))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_bomb_of_ten_gigabytes_is_413_in_bounded_memory(gateway: Served, encoding: str) -> None:
    body, process = bomb(encoding), psutil.Process()
    assert len(body) <= BODY_BYTES_MAX
    before, started = process.memory_info().rss, time.monotonic()
    for _ in range(5):
        assert gateway.post(body, b"Content-Encoding: " + encoding.encode()).status == 413
    assert time.monotonic() - started < 5
    assert process.memory_info().rss - before < 150 * MIB


def test_half_bodies_of_one_account_leave_room_to_others(gateway: Served) -> None:
    """As many as fill all the room that there is, each almost whole, and then silent."""
    half, room = b" " * (BODY_BYTES_MAX - 100_000), Settings().gateway_bytes_max
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(gateway.port)) for _ in range(room // len(half) + 1)]
        refusals = []
        for wire in wires:
            wire.send(gateway.head(length=BODY_BYTES_MAX) + half)
            wire.socket.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                refusals.append(wire.answer())
        assert len(refusals) > len(wires) / 2
        for refusal in refusals:
            assert refusal is not None and refusal.status == 503
            assert refusal.headers["retry-after"] == "1"
        assert gateway.post(EVENT).status in (202, 503)
        with Wire(gateway.port) as wire:
            head = gateway.head(length=len(EVENT))
            wire.send(head.replace(gateway.key.encode(), gateway.others_key.encode()) + EVENT)
            answer = wire.answer()
            assert answer is not None and answer.status == 202
    deadline = time.monotonic() + 5
    while not gateway.healthy():  # the room of who went is there again
        assert time.monotonic() < deadline


def test_what_is_compressed_twice_is_415_or_no_json(gateway: Served) -> None:
    twice = gzip.compress(gzip.compress(EVENT))
    assert gateway.post(twice, b"Content-Encoding: gzip, gzip").status == 415
    assert gateway.post(twice, b"Content-Encoding: gzip").status == 400
    assert gateway.post(EVENT, b"Content-Encoding: gzip").status == 400
    assert gateway.post(EVENT, b"Content-Encoding: br").status == 415


def test_padding_between_chunks_and_behind_them_is_bounded(gateway: Served) -> None:
    head = gateway.head(b"Transfer-Encoding: chunked")
    for padding in (b"1;" + b"x" * MIB, b"0\r\nX: " + b"x" * MIB, b"0\r\n" + b"X: y\r\n" * MIB):
        assert refused(gateway, head + padding) == (400, "invalid_http")


# JSON


def event(properties: bytes = b"{}", name: bytes = b"a") -> bytes:
    return b'{"event_name":"%s","external_customer_id":"c","properties":%s}' % (name, properties)


BODIES = {
    "duplicate_keys": (b'{"event_name":"a","event_name":"b","external_customer_id":"c"}', 202),
    "nan": (event(b'{"v":NaN}'), 400),
    "infinity": (event(b'{"v":-Infinity}'), 400),
    "1e999": (event(b'{"v":1e999}'), 202),  # kept as text; the verdict is out_of_range
    "400_digits": (event(b'{"v":%s}' % (b"9" * 400)), 202),
    "utf8_in_a_used_field": (event(name=b"\xff"), 400),
    "utf8_in_an_unknown_field": (event(b'{"v":"\xff"}'), 400),
    "lone_surrogate": (event(name=b"\\ud800"), 400),
    "nul_in_a_name": (event(name=b"\\u0000"), 400),
    "nul_in_properties": (event(b'{"v":"\\u0000"}'), 202),
    "bom": (b"\xef\xbb\xbf" + event(), 400),
    "depth_32": (event(b'{"v":' + b"[" * 30 + b"]" * 30 + b"}"), 202),
    "depth_33": (event(b'{"v":' + b"[" * 31 + b"]" * 31 + b"}"), 400),
    "depth_100000": (event(b'{"v":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), 400),
    "depth_unclosed": (b"[" * 1_000_000, 400),
    "trailing_bytes": (event() + b"x", 400),
    "two_documents": (event() + event(), 400),
    "100000_properties": (
        event(json.dumps({str(number): number for number in range(100_000)}).encode()), 400,
    ),
    "string_of_a_mebibyte": (event(b'{"v":"%s"}' % (b"x" * MIB)), 400),
    "odd_keys": (event(b'{"__proto__":{"a":1},"$.a.b":1,"a.b":2,"a":{"b":3}}'), 202),
    "empty_name": (event(name=b""), 400),
    "empty_id": (b'{"event_id":"","event_name":"a","external_customer_id":"c"}', 400),
    "spaces": (event(name=b" a "), 202),
    "odd_numbers": (event(b'{"v":-1,"w":-0,"x":0,"y":true}'), 202),
    "odd_letters": (event(name="e\u0301\u202e\U0001f600".encode()), 202),
    "no_events": (b'{"events":[]}', 400),
    "1001_events": (b"[" + b",".join([event()] * 1001) + b"]", 400),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status"), BODIES.values(), ids=BODIES)
def test_a_hostile_body_is_202_or_400_alone_and_in_a_bulk(
    gateway: Served, body: bytes, status: int
) -> None:
    single = gateway.post(body)
    whole = body if b'"events"' in body or body[:1] == b"[" else b'{"events":[' + body + b"]}"
    bulk = gateway.post(whole, path=b"/v1/events/bulk")
    assert bulk.status == status
    assert single.status == (status if whole is not body else 400)
    if status == 202:
        assert gateway.log.records[-1].value == whole


# Deadlines


def test_a_silent_connection_is_closed(gateway: Served, hurried: None) -> None:
    with Wire(gateway.port) as wire:
        assert 0.2 < wire.closed_after() < 2
    with Wire(gateway.port) as wire:  # line ends before a request are no request
        wire.send(b"\r\n\r\n")
        assert 0.2 < wire.closed_after() < 2


def test_a_head_that_comes_by_drops_is_408(gateway: Served, hurried: None) -> None:
    started = time.monotonic()
    with Wire(gateway.port) as wire:
        for byte in gateway.head(length=0)[:30]:
            wire.send(bytes([byte]))
            time.sleep(0.02)
        answer = wire.answer()
        assert answer is not None and answer.status == 408
        assert answer.body["error"].startswith("The headers did not arrive")
        wire.closed_after()
    assert time.monotonic() - started < 2


def test_a_body_that_comes_by_drops_is_408(gateway: Served, hurried: None) -> None:
    started = time.monotonic()
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=1000))
        for _ in range(30):
            wire.send(b" ")
            time.sleep(0.02)
        answer = wire.answer()
        assert answer is not None and answer.status == 408
        assert answer.body["error"].startswith("The body did not arrive")
    assert time.monotonic() - started < 2


def test_a_body_that_comes_fast_but_never_ends_is_408(gateway: Served, hurried: None) -> None:
    started = time.monotonic()
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=BODY_BYTES_MAX))
        for _ in range(75):
            wire.send(b" " * 1000)
            time.sleep(0.02)
        answer = wire.answer()
        assert answer is not None and answer.status == 408
    assert 1.2 <= time.monotonic() - started < 3


def test_a_slow_but_steady_body_is_taken(gateway: Served, hurried: None) -> None:
    body = EVENT + b" " * 3000
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=len(body)))
        for start in range(0, len(body), 300):
            wire.send(body[start : start + 300])
            time.sleep(0.06)
        answer = wire.answer()
        assert answer is not None and answer.status == 202


def test_a_connection_serves_many_requests_and_half_a_second_one_is_408(
    gateway: Served, hurried: None
) -> None:
    with Wire(gateway.port) as wire:
        for _ in range(5):
            wire.send(gateway.head(length=len(EVENT)) + EVENT)
            answer = wire.answer()
            assert answer is not None and answer.status == 202
            time.sleep(0.15)
        wire.send(gateway.head(length=len(EVENT))[:40])
        answer = wire.answer()
        assert answer is not None and answer.status == 408
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=len(EVENT)) + EVENT)
        assert wire.answer() is not None
        wire.send(b"\r\n")  # which ends uvicorn's own timer
        assert 0.3 < wire.closed_after() < 3


def test_a_body_that_stops_is_408(gateway: Served, hurried: None) -> None:
    """However fast it came before: what is held of it is others' room."""
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=BODY_BYTES_MAX) + b" " * MIB)
        started = time.monotonic()
        answer = wire.answer()
        assert answer is not None and answer.status == 408
    assert time.monotonic() - started < 1.1


UNREAD = {"others": b"", "rubbish": b"\0\0\r\n\r\n"}


@pytest.mark.parametrize("end", UNREAD.values(), ids=UNREAD)
def test_a_client_that_does_not_read_its_answers_is_closed(
    gateway: Served, hurried: None, end: bytes
) -> None:
    """It needs no key: a refusal is an answer as well."""
    connections = gateway.server.server_state.connections
    with Wire(gateway.port, receive_bytes=4096) as wire:
        while not connections:
            time.sleep(0.01)
        started = time.monotonic()
        wire.send(WITHOUT_KEY * 10_000 + end)  # until it is closed
        while connections:
            assert time.monotonic() - started < 5
            time.sleep(0.02)
    assert gateway.healthy()


def test_a_client_that_reads_slowly_gets_all_its_answers(gateway: Served, hurried: None) -> None:
    """For longer than it may read nothing."""
    size, answers, end = 8000, 0, b""
    with Wire(gateway.port, receive_bytes=1 << 16) as wire:
        sending = threading.Thread(target=wire.send, args=(WITHOUT_KEY * size,))
        sending.start()
        started = time.monotonic()
        while answers < size:
            if time.monotonic() < started + 1:
                time.sleep(0.02)
            piece = wire.socket.recv(1 << 16)
            assert piece, (answers, time.monotonic() - started)
            answers += (end + piece).count(b"\r\n\r\n")
            end = piece[-3:]
        sending.join()


def test_a_refusal_before_the_body_waits_for_it_no_longer_than_for_any(
    gateway: Served, hurried: None
) -> None:
    with Wire(gateway.port) as wire:
        wire.send(gateway.head(length=1000).replace(gateway.key.encode(), b"sk_wrong"))
        answer = wire.answer()
        assert answer is not None and answer.status in (401, 429)
        assert wire.closed_after() < 2


def test_stopping_waits_for_nobody_who_is_silent(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served(Settings(data_dir=tmp_path_factory.mktemp("stopping"))) as gateway:
        connection.STOP_S, before = 1.0, connection.STOP_S
        wires = [Wire(gateway.port) for _ in range(30)]
        for number, wire in enumerate(wires):
            wire.send((b"", gateway.head()[:20], gateway.head(length=99) + b"{")[number % 3])
        assert gateway.healthy()
        with Wire(gateway.port) as busy:
            busy.send(gateway.head(length=len(EVENT)) + EVENT[:5])
            time.sleep(0.1)
            started = time.monotonic()
            gateway.server.should_exit = True
            time.sleep(0.4)
            busy.send(EVENT[5:])
            answer = busy.answer()
            assert answer is not None and answer.status == 202
    assert time.monotonic() - started < 4
    for wire in wires:
        wire.socket.close()
    connection.STOP_S = before
