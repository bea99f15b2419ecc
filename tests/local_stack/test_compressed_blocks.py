"""ClickHouse's own compressed blocks, both ways."""

import lz4.block
import pytest
import zstandard

from local_stack.compressed_blocks import (
    BLOCK_BYTES,
    HEAD,
    LZ4,
    NONE,
    ZSTD,
    BlockDecoder,
    BlockEncoder,
    checksum,
)
from local_stack.encodings import BadEncoding, Encoder
from tests.local_stack.conftest import Http

FROM_THE_ENGINE = bytes.fromhex(
    "df98c2f50272f4583e9c031d77ea497282210000009c0000002205000100"
    "0f0800455f74616c6c7905001f5074616c6c79"
)  # a part's data.bin
ITS_CONTENT = (5).to_bytes(8, "little") * 12 + b"tally" * 12


def decode(data: bytes, step: int = 0, verify: bool = True) -> bytes:
    """Decode blocks that arrive in pieces."""
    decoder = BlockDecoder(verify)
    step = step or len(data) or 1
    found = b"".join(
        part for at in range(0, len(data), step) for part in decoder.feed(data[at : at + step])
    )
    decoder.finish()
    return found


def block(method: int, packed: bytes, size: int) -> bytes:
    """One block with its checksum."""
    body = HEAD.pack(method, HEAD.size + len(packed), size) + packed
    return checksum(body) + body


def test_a_block_of_the_engine_s_own_is_verified_and_read() -> None:
    assert decode(FROM_THE_ENGINE) == ITS_CONTENT


@pytest.mark.parametrize("size", [0, 1, 1000, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 5])
def test_what_is_encoded_comes_back(size: int) -> None:
    content = bytes(n * n % 251 for n in range(1000)) * (size // 1000 + 1)
    content = content[:size]
    encoder = Encoder("", BlockEncoder())
    packed = encoder.feed(content[: size // 3]) + encoder.feed(content[size // 3 :])
    packed += encoder.finish()
    assert decode(packed) == content
    assert decode(packed, step=777) == content


def test_every_method_is_read() -> None:
    packed = lz4.block.compress(b"one" * 100, store_size=False)
    blocks = block(LZ4, packed, 300)
    blocks += block(ZSTD, zstandard.ZstdCompressor().compress(b"two" * 100), 300)
    blocks += block(NONE, b"three", 5)
    assert decode(blocks) == b"one" * 100 + b"two" * 100 + b"three"


def test_every_damaged_byte_is_found() -> None:
    whole = block(LZ4, lz4.block.compress(b"data" * 10, store_size=False), 40)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        with pytest.raises(BadEncoding):
            decode(bytes(damaged))
    for cut in range(1, len(whole)):
        with pytest.raises(BadEncoding):
            decode(whole[:cut])


@pytest.mark.clickhouse
def test_answers_and_bodies_in_blocks(http: Http, table: str) -> None:
    sql = "SELECT number, toString(number) FROM numbers(300000) FORMAT TSV"
    plain = http.ask(sql).content
    packed = http.ask(sql, compress=1).content
    assert len(packed) < len(plain)
    assert decode(packed) == plain
    answer = http.ask("INSERT INTO t FORMAT TSV", body=packed, decompress=1)
    assert answer.status_code == 200, answer.text
    assert http.rows("SELECT count() FROM t") == "300000"
    damaged = bytearray(packed)
    damaged[-1] ^= 1
    refused = http.ask("INSERT INTO t FORMAT TSV", body=bytes(damaged), decompress=1)
    assert refused.headers["X-ClickHouse-Exception-Code"] == "40"
    assert http.rows("SELECT count() FROM t") == "300000"
    error = http.ask("SELECT nope", compress=1)
    assert error.status_code == 404 and error.text.startswith("Code: 47. ")


@pytest.mark.clickhouse
def test_blocks_inside_an_http_encoding(http: Http) -> None:
    head = {"Accept-Encoding": "gzip"}
    answer = http.ask("SELECT 1", headers=head, compress=1, enable_http_compression=1)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert decode(answer.content) == b"1\n"
