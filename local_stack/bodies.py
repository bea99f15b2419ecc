"""Bodies of requests: the statement at their head, and the data of an INSERT in a file."""

import os
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import parse_qsl

from local_stack.compressed_blocks import BlockDecoder
from local_stack.encodings import BadEncoding, Decoder
from local_stack.forms import ExternalTable, boundary_of, read_form
from local_stack.statements import DataInsert, data_insert

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

STATEMENT_BYTES = 256 * 1024  # an INSERT's statement in a body lies within this
MEMORY_BODY_BYTES = 64 * 1024 * 1024  # a larger body waits on disk
COPY_BYTES = 1024 * 1024
UNVERIFIED = "http_native_compression_disable_checksumming_on_decompress"


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
    without a name. `args` are the URL's and a form's, `tables` what a form brought.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.args = request.args
        self.sql = request.args.get("query", "")
        self.tables: list[ExternalTable] = []
        self.insert: DataInsert | None = None
        self._boundary = boundary_of(request.headers.get("content-type", ""))
        self._file: IO[bytes] | None = None
        self._size = 0
        self._head: bytearray | None = None
        if not self._boundary:
            self._head = bytearray(self.sql.encode() + b"\n" if self.sql else b"")
            self._take_statement()

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        for table in self.tables:
            table.data.close()
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
        blocks = None
        if self.request.flag("decompress"):
            blocks = BlockDecoder(verify=not self.request.flag(UNVERIFIED))
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

    def _take_statement(self) -> None:
        """Find an INSERT in `sql`, which is no longer in the body, and keep the data after it."""
        self.insert = data_insert(self.sql) if self.sql else None
        if self.insert is not None:
            self._head = None
            if rest := self.sql[self.insert.end :].strip():
                self._store(rest.encode() + b"\n")

    def _take_form(self) -> None:
        """Read the fields and tables of a form, which make up the body."""
        form, self._file, self._size = self._file or memory_file(), None, 0
        with form:
            fields, self.tables = read_form(form, self._boundary, self.args, memory_file)
        self.sql += fields.pop("query", "")
        self.args = self.args | fields
        self._take_statement()

    def _end(self) -> None:
        if self._boundary:
            self._take_form()
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


def memory_file() -> IO[bytes]:
    """A file without a name: in memory where the system can, else on disk."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("insert"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
