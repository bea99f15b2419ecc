"""A request's body: whole, decoded, and never larger than it may be."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Protocol

import zstandard

from ingest_gateway.errors import Overloaded
from schemas.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType, shown
from schemas.limits import BODY_BYTES_MAX

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
INFLATING_MAX = 4
"""Compressed bodies that are inflated at once: a bomb takes its 10 MiB before it shows. On threads
of their own: others of the process may all wait for a store that is away."""

LEFT_PER_HELD = 3
"""Bytes that have to be left of the budget for each that an account holds."""

PARTS_MAX = 256
"""Members of gzip, or frames of zstd: each copies the rest of the body, and may be empty."""

ZSTD_WINDOW_MAX = 1 << 27
THREAD_BYTES = 4096
"""A compressed body from here on is inflated on a thread: others need not wait for it."""


class ClientGone(Exception):
    """The client left before its body was whole: there is nobody to answer."""


class Budget:
    """Bytes that may be in memory at once, over all requests.

    An account may hold a third of what it leaves: of all a quarter when it is alone, and the fewer
    the more others hold. So whatever some accounts hold, the next one has room.
    """

    def __init__(self, bytes_max: int) -> None:
        self.left = bytes_max
        self.inflating = ThreadPoolExecutor(INFLATING_MAX, thread_name_prefix="inflating")
        self._held: dict[str, int] = {}

    def take(self, account: str, size: int) -> None:
        """Raises Overloaded when there is no room."""
        held = self._held.get(account, 0) + size
        if held * LEFT_PER_HELD > self.left - size:
            raise Overloaded()
        self.left -= size
        self._held[account] = held

    def give_back(self, account: str, size: int) -> None:
        """Make room again."""
        self.left += size
        self._held[account] -= size
        if not self._held[account]:
            del self._held[account]


class Hold:
    """What one request of an account holds of the budget; given back at its end."""

    __slots__ = ("_account", "_size", "budget")

    def __init__(self, budget: Budget, account: str) -> None:
        self.budget = budget
        self._account = account
        self._size = 0

    def take(self, size: int) -> None:
        """Hold more. Raises Overloaded."""
        if size:
            self.budget.take(self._account, size)
            self._size += size

    def give_back(self) -> None:
        """Hold nothing any more."""
        if self._size:
            self.budget.give_back(self._account, self._size)
            self._size = 0


class _Inflater(Protocol):
    def __call__(self, body: bytes) -> bytes: ...


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], hold: Hold) -> bytes:
    """The JSON text of a request; `connection` sees to it that it arrives in time.

    Raises UnsupportedMediaType, PayloadTooLarge (without reading on), Overloaded, InvalidRequest
    for a broken encoding, ClientGone.
    """
    media_type = headers.get(b"content-type")
    if media_type is not None:
        _require_json(media_type)
    encoding = headers.get(b"content-encoding")
    inflate = None if encoding is None else _inflater(encoding)
    length = headers.get(b"content-length")
    if length is not None and len(length) > 7 and int(length) > BODY_BYTES_MAX:
        raise _too_large()
    message = await _next(receive)
    body: bytes = message.get("body", b"")
    hold.take(len(body))
    if message.get("more_body", False):
        body = await _rest(receive, body, hold)
    if len(body) > BODY_BYTES_MAX:
        raise _too_large()
    if inflate is not None:
        if len(body) < THREAD_BYTES:
            body = inflate(body)
        else:
            loop = asyncio.get_running_loop()
            body = await loop.run_in_executor(hold.budget.inflating, inflate, body)
        hold.give_back()
        hold.take(len(body))
    return body


async def _next(receive: Receive) -> MutableMapping[str, Any]:
    """The next piece. Raises ClientGone."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


async def _rest(receive: Receive, start: bytes, hold: Hold) -> bytes:
    """The body from its first piece on."""
    body = bytearray(start)
    while True:
        message = await _next(receive)
        piece = message.get("body", b"")
        if len(body) + len(piece) > BODY_BYTES_MAX:
            raise _too_large()
        hold.take(len(piece))
        body += piece
        if not message.get("more_body", False):
            return bytes(body)


@lru_cache(maxsize=64)
def _json_type(media_type: bytes) -> bool:
    name, _, parameters = media_type.decode("latin-1").lower().partition(";")
    if not (name.strip() == "application/json" or name.strip().endswith("+json")):
        return False
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip() == "charset" and value.strip().strip('"') not in (
            "utf-8",
            "utf8",
            "us-ascii",
        ):
            return False
    return True


def _require_json(media_type: bytes) -> None:
    if not _json_type(media_type):
        raise UnsupportedMediaType(
            f"Content-Type {shown(media_type.decode('latin-1'))} is not supported",
            cure="send application/json in UTF-8",
        )


def _inflater(encoding: bytes) -> _Inflater | None:
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return None
    inflate = _INFLATERS.get(name)
    if inflate is None:
        raise UnsupportedMediaType(
            f"Content-Encoding {shown(encoding.decode('latin-1'))} is not supported",
            cure="send gzip, zstd, deflate or none",
            headers={"Accept-Encoding": "gzip, zstd, deflate"},
        )
    return inflate


def _gunzip(body: bytes) -> bytes:
    """Gzip, also of several members one after the other."""
    parts: list[bytes] = []
    room = BODY_BYTES_MAX + 1
    while body:
        if len(parts) == PARTS_MAX:
            raise _broken("gzip", f"it has more than {PARTS_MAX} members")
        stream = zlib.decompressobj(31)
        parts.append(_inflated(stream, body, room, "gzip"))
        room -= len(parts[-1])
        if room <= 0:
            raise _too_large()
        body = stream.unused_data
    return b"".join(parts)


def _undeflate(body: bytes) -> bytes:
    """Deflate, with zlib's frame as the standard says, or without as some clients do."""
    try:
        return _whole(_inflated(zlib.decompressobj(15), body, BODY_BYTES_MAX + 1, "deflate"))
    except InvalidRequest:
        return _whole(_inflated(zlib.decompressobj(-15), body, BODY_BYTES_MAX + 1, "deflate"))


def _unzstd(body: bytes) -> bytes:
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX).stream_reader(
            body, read_across_frames=True
        )
        text = _whole(reader.read(BODY_BYTES_MAX + 1))
        if body:
            _require_whole_frames(body)
    except zstandard.ZstdError as error:
        raise _broken("zstd", error) from None
    return text


def _require_whole_frames(body: bytes) -> None:
    """See that the last frame of zstd ends: the reader gives what there is of it either way."""
    for _ in range(PARTS_MAX):
        frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX).decompressobj()
        frame.decompress(body)
        if not frame.eof:
            raise _broken("zstd", "it ends too early")
        body = frame.unused_data
        if not body:
            return
    raise _broken("zstd", f"it has more than {PARTS_MAX} frames")


def _inflated(stream: Any, body: bytes, room: int, name: str) -> bytes:
    try:
        part: bytes = stream.decompress(body, room)
    except zlib.error as error:
        raise _broken(name, error) from None
    if len(part) < room and not stream.eof:
        raise _broken(name, "it ends too early")
    return part


def _whole(body: bytes) -> bytes:
    if len(body) > BODY_BYTES_MAX:
        raise _too_large()
    return body


_INFLATERS: dict[bytes, _Inflater] = {
    b"gzip": _gunzip,
    b"x-gzip": _gunzip,
    b"deflate": _undeflate,
    b"zstd": _unzstd,
}


def _broken(name: str, why: object) -> InvalidRequest:
    return InvalidRequest.at("", "invalid_encoding", f"The body is not valid {name}: {why}")


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The body is larger than {BODY_BYTES_MAX} bytes",
        cure="send fewer events in one request",
    )
