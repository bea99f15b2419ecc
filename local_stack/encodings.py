"""Content encodings of HTTP bodies: frames decoded as they arrive, answers encoded as they leave.

A body may be many frames one after the other (clickhouse-connect makes one for each block): every
frame is decoded. A body that ends inside a frame is an error, never a shorter body.
"""

import zlib
from typing import Protocol

import cramjam
import lz4.frame
import zstandard


class BadEncoding(Exception):
    """The body isn't what its Content-Encoding says, or ends too early; `code` is ClickHouse's."""

    def __init__(self, text: str, code: int = 32) -> None:
        super().__init__(text)
        self.code = code


class _Frame(Protocol):
    """What zlib, lz4 and zstandard decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes) -> bytes: ...


class Compressor(Protocol):
    """What zlib and zstandard compressors have in common."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Decoder:
    """Decodes a body of one or many frames; `feed` each piece, then `finish`.

    Raises BadEncoding for an encoding that isn't known, or a body that isn't in it.
    """

    def __init__(self, encoding: str) -> None:
        if encoding not in DECODABLE:
            raise BadEncoding(f"Unknown Content-Encoding {encoding}: use {', '.join(DECODABLE)}")
        self.encoding = encoding
        self._frame: _Frame | None = None
        self._brotli = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """What a piece of the body decodes to."""
        pieces: list[bytes] = []
        if self.encoding == "br":
            self._brotli += data  # has no frames, and its decoder wants it whole
            return pieces
        try:
            while data:
                if self._frame is None:
                    self._frame = new_frame(self.encoding, data)
                if piece := self._frame.decompress(data):
                    pieces.append(piece)
                if not self._frame.eof:
                    break
                data = self._frame.unused_data
                self._frame = None
        except (zlib.error, RuntimeError, zstandard.ZstdError, EOFError) as error:
            raise BadEncoding(f"The body is not in {self.encoding}: {error}") from error
        return pieces

    def finish(self) -> bytes:
        """What is left to decode; raises BadEncoding if the body ended inside a frame."""
        if self._brotli:
            try:
                return bytes(cramjam.brotli.decompress(self._brotli))
            except (OSError, cramjam.DecompressionError) as error:
                raise BadEncoding(f"The body is not in br: {error}") from error
        if self._frame is not None:
            raise BadEncoding(f"The body ends in the middle of its {self.encoding} data")
        return b""


def new_frame(encoding: str, data: bytes) -> _Frame:
    """A decompressor for one frame, which begins with `data`."""
    match encoding:
        case "gzip":
            return zlib.decompressobj(31)
        case "deflate":  # in a zlib envelope as the standard says, or bare as some clients send it
            return zlib.decompressobj(15 if data[0] & 0x0F == 8 else -15)
        case "lz4":
            frame: _Frame = lz4.frame.LZ4FrameDecompressor()
            return frame
        case _:
            return zstandard.ZstdDecompressor().decompressobj()


DECODABLE = ("gzip", "deflate", "lz4", "zstd", "br")


class Encoder:
    """Encodes an answer piece by piece; without an encoding it leaves the pieces alone.

    `blocks` makes ClickHouse's own compressed blocks of it first.
    """

    def __init__(self, encoding: str = "", blocks: "Compressor | None" = None) -> None:
        self.encoding = encoding
        self._blocks = blocks
        self._lz4 = lz4.frame.LZ4FrameCompressor() if encoding == "lz4" else None
        self._begun = False
        self._stream: Compressor
        if encoding in {"gzip", "deflate"}:
            wbits = 31 if encoding == "gzip" else 15
            self._stream = zlib.compressobj(3, zlib.DEFLATED, wbits)
        elif encoding == "zstd":
            self._stream = zstandard.ZstdCompressor(level=1).compressobj()

    def feed(self, data: bytes) -> bytes:
        """The encoded form of the next piece, as far as it is decided."""
        if self._blocks is not None:
            data = self._blocks.compress(data)
        return self._encode(data)

    def _encode(self, data: bytes) -> bytes:
        if not self.encoding:
            return data
        if self._lz4 is not None:
            head = b"" if self._begun else bytes(self._lz4.begin())
            self._begun = True
            return head + bytes(self._lz4.compress(data))
        return self._stream.compress(data)

    def finish(self) -> bytes:
        """The end of the encoded answer."""
        rest = self._blocks.flush() if self._blocks is not None else b""
        return self._encode(rest) + self._end()

    def _end(self) -> bytes:
        if not self.encoding:
            return b""
        if self._lz4 is not None:
            head = b"" if self._begun else bytes(self._lz4.begin())
            return head + bytes(self._lz4.flush())
        return self._stream.flush()


def chosen_encoding(accept: str) -> str:
    """The encoding to answer in for an Accept-Encoding header; empty: none."""
    offered = {part.split(";")[0].strip() for part in accept.lower().split(",")}
    return next((each for each in ("zstd", "lz4", "gzip", "deflate") if each in offered), "")
