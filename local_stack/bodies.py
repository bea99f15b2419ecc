"""Bodies of requests: the statement at their head, and the data of an INSERT in a file."""

import os
import struct
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import parse_qsl

import lz4.block
import zstandard

from local_stack.encodings import BadEncoding, Decoder
from local_stack.statements import DataInsert, data_insert

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

STATEMENT_BYTES = 256 * 1024  # an INSERT's statement in a body lies within this
MEMORY_BODY_BYTES = 64 * 1024 * 1024  # a larger body waits on disk
COPY_BYTES = 1024 * 1024


class Disconnected(Exception):
    """The client went away."""


@dataclass(frozen=True)
class Request:
    """What a request asks for, before its body."""

    method: str
    path: str
    args: dict[str, str]
    headers: dict[str, str]

    @classmethod
    def of(cls, scope: Scope) -> "Request":
        args = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        return cls(scope["method"], scope["path"], dict(args), headers)

    def flag(self, name: str) -> bool:
        return self.args.get(name, "0") in {"1", "true"}


class Body:
    """A request's body: the statement's text, and the data of an INSERT in a file of its own.

    After `read`, `sql` is the statement without data, `insert` says whether data follows it, and
    `descriptor` is where the data lies, decoded: in memory while it is small, else on disk,
    without a name.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sql = request.args.get("query", "")
        self.insert: DataInsert | None = data_insert(self.sql) if self.sql else None
        self._head: bytearray | None = bytearray()
        if self.sql:
            self._head += self.sql.encode() + b"\n"
        if self.insert is not None:
            self._head = None
        self._file: IO[bytes] | None = None
        self._size = 0
        if self.insert is not None and (rest := self.sql[self.insert.end :].strip()):
            self._store(rest.encode() + b"\n")

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def descriptor(self) -> int:
        if self.insert is None:
            return -1
        if self._file is None:
            self._file = memory_file()
        self._file.flush()
        return self._file.fileno()

    async def read(self, receive: Receive) -> None:
        """Read all of it. Raises Disconnected if the client goes away, BadEncoding if it is
        damaged."""
        encoding = self.request.headers.get("content-encoding", "identity").strip().lower()
        decoder = Decoder(encoding) if encoding not in {"", "identity"} else None
        blocks = BlockDecoder() if self.request.flag("decompress") else None
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            more = message.get("more_body", False)
            data = message.get("body", b"")
            pieces = decoder.feed(data) if decoder else [data]
            if decoder and not more:
                pieces.append(decoder.finish())
            for piece in pieces:
                for part in blocks.feed(piece) if blocks else (piece,):
                    self._take(part)
        if blocks:
            blocks.finish()
        self._end()

    def _take(self, data: bytes) -> None:
        if self._head is None:
            self._store(data)
            return
        self._head += data
        if len(self._head) > STATEMENT_BYTES and self._file is None:
            self._split(self._head[:STATEMENT_BYTES])

    def _end(self) -> None:
        if self._head is not None and not self._split(self._head):
            try:
                self.sql = self._head.decode()
            except UnicodeDecodeError as error:
                raise BadEncoding(f"The query is not in UTF-8: {error}") from error

    def _split(self, head: bytearray) -> bool:
        """Find an INSERT at the head of the body, and put what follows it where data goes."""
        text = head.decode("latin-1")  # a character a byte: positions hold
        insert = data_insert(text)
        if insert is None or self._head is None:
            return False
        whole = self._head
        self._head = None
        self.sql = whole[: insert.end].decode()
        before = insert.before.encode("latin-1").decode()
        after = insert.after.encode("latin-1").decode()
        self.insert = DataInsert(before, after, insert.format, insert.end)
        self._store(bytes(memoryview(whole)[insert.end :]))
        return True

    def _store(self, data: bytes) -> None:
        if not data:
            return
        self._size += len(data)
        if self._file is None:
            self._file = memory_file()
        elif self._size > MEMORY_BODY_BYTES and self._size - len(data) <= MEMORY_BODY_BYTES:
            small, self._file = self._file, tempfile.TemporaryFile(buffering=0)
            with small:
                small.seek(0)
                while piece := small.read(COPY_BYTES):
                    self._file.write(piece)
        self._file.write(data)


class BlockDecoder:
    """Decodes ClickHouse's own compressed blocks (`decompress=1`); their checksums are not looked
    at."""

    HEAD = 25  # checksum 16, method 1, compressed size 4 (with this head of 9), size 4

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The contents of the blocks that are complete."""
        self._rest += data
        while len(self._rest) >= self.HEAD:
            method, size, plain_size = struct.unpack_from("<BII", self._rest, 16)
            if len(self._rest) < 16 + size:
                return
            content = bytes(memoryview(self._rest)[self.HEAD : 16 + size])
            del self._rest[: 16 + size]
            try:
                if method == 0x82:
                    yield lz4.block.decompress(content, uncompressed_size=plain_size)
                elif method == 0x90:
                    yield zstandard.ZstdDecompressor().decompress(content, plain_size)
                elif method == 0x02:
                    yield content
                else:
                    raise BadEncoding(f"Unknown compression method {method:#x}")
            except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
                raise BadEncoding(f"A compressed block is damaged: {error}") from error

    def finish(self) -> None:
        """Raise BadEncoding if the body ended inside a block."""
        if self._rest:
            raise BadEncoding("The body ends in the middle of a compressed block")


def memory_file() -> IO[bytes]:
    """A file without a name: in memory where the system can, else on disk."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("insert"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
