"""ClickHouse's own compressed blocks, as `compress=1` and `decompress=1` ask for them.

A block is a checksum of what follows it (CityHash128 of version 1.0.2, 16 bytes), a method (1),
the compressed size with this head of 9 bytes (4), the size (4), and the content.
"""

import struct
from collections.abc import Iterator

import lz4.block
import zstandard
from clickhouse_cityhash.cityhash import CityHash128  # type: ignore[import-untyped]

from local_stack.encodings import BadEncoding

HEAD = struct.Struct("<BII")
CHECKSUM_BYTES = 16
BLOCK_BYTES = 1024 * 1024  # max_compress_block_size
SIZE_MAX = 1024 * 1024 * 1024  # a larger size is damage
LZ4, ZSTD, NONE = 0x82, 0x90, 0x02


def checksum(data: bytes) -> bytes:
    """CityHash128 of a block as it stands before it: the low half first."""
    number: int = CityHash128(data)
    return (number >> 64).to_bytes(8, "little") + (number & (1 << 64) - 1).to_bytes(8, "little")


class BlockEncoder:
    """Cuts an answer into LZ4 blocks."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def compress(self, data: bytes, /) -> bytes:
        """The blocks that are full."""
        self._rest += data
        blocks: list[bytes] = []
        while len(self._rest) >= BLOCK_BYTES:
            blocks.append(encode_block(bytes(memoryview(self._rest)[:BLOCK_BYTES])))
            del self._rest[:BLOCK_BYTES]
        return b"".join(blocks)

    def flush(self) -> bytes:
        """The last block."""
        rest, self._rest = bytes(self._rest), bytearray()
        return encode_block(rest) if rest else b""


def encode_block(content: bytes) -> bytes:
    """One block of LZ4."""
    packed: bytes = lz4.block.compress(content, store_size=False)
    block = HEAD.pack(LZ4, HEAD.size + len(packed), len(content)) + packed
    return checksum(block) + block


class BlockDecoder:
    """Decodes blocks as they arrive; `feed` each piece, then `finish`. Raises BadEncoding."""

    def __init__(self, verify: bool = True) -> None:
        self.verify = verify
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The contents of the blocks that are complete."""
        self._rest += data
        while len(self._rest) >= CHECKSUM_BYTES + HEAD.size:
            method, size, plain_size = HEAD.unpack_from(self._rest, CHECKSUM_BYTES)
            if not HEAD.size <= size <= SIZE_MAX or plain_size > SIZE_MAX:
                raise BadEncoding("The head of a compressed block is damaged")
            end = CHECKSUM_BYTES + size
            if len(self._rest) < end:
                return
            block = bytes(memoryview(self._rest)[CHECKSUM_BYTES:end])
            if self.verify and checksum(block) != self._rest[:CHECKSUM_BYTES]:
                raise BadEncoding("Checksum doesn't match: corrupted data", 40)
            del self._rest[:end]
            yield decode_block(method, block[HEAD.size :], plain_size)

    def finish(self) -> None:
        """Raise BadEncoding if the body ended inside a block."""
        if self._rest:
            raise BadEncoding("The body ends in the middle of a compressed block")


def decode_block(method: int, content: bytes, size: int) -> bytes:
    """The content of one block. Raises BadEncoding."""
    try:
        if method == LZ4:
            plain: bytes = lz4.block.decompress(content, uncompressed_size=size)
        elif method == ZSTD:
            plain = zstandard.ZstdDecompressor().decompress(content, size)
        elif method == NONE:
            plain = content
        else:
            raise BadEncoding(f"Unknown compression method {method:#x}", 89)
    except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
        raise BadEncoding(f"A compressed block is damaged: {error}") from error
    if len(plain) != size:
        raise BadEncoding("A compressed block is not as long as it says")
    return plain
