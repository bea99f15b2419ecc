"""A request's body: whole, decoded, bounded."""

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest_gateway.body import Budget, ClientGone, Hold, read_body
from ingest_gateway.errors import Overloaded
from schemas.errors import InvalidRequest, PayloadTooLarge, Rejection, UnsupportedMediaType
from schemas.limits import BODY_BYTES_MAX

JSON = b'{"event_name":"a","external_customer_id":"c"}'


class Client:
    """Sends its messages one after the other, then nothing."""

    def __init__(self, messages: Iterable[dict[str, Any]]) -> None:
        self.messages = list(messages)

    async def __call__(self) -> dict[str, Any]:
        if not self.messages:
            await asyncio.sleep(3600)
        return self.messages.pop(0)


def pieces(*parts: bytes) -> Client:
    last = len(parts) - 1
    return Client(
        {"type": "http.request", "body": part, "more_body": index < last}
        for index, part in enumerate(parts)
    )


async def read(
    client: Client, headers: dict[str, str] | None = None, budget: Budget | None = None
) -> bytes:
    raw = {name.encode(): value.encode() for name, value in (headers or {}).items()}
    hold = Hold(budget or Budget(64 << 20), "one")
    try:
        return await read_body(client, raw, hold)
    finally:
        hold.give_back()


async def refusal(*args: Any) -> Rejection:
    with pytest.raises(Rejection) as raised:
        await read(*args)
    return raised.value


async def test_a_body_is_joined_from_its_pieces() -> None:
    assert await read(pieces(JSON)) == JSON
    assert await read(pieces(JSON[:5], b"", JSON[5:], b"")) == JSON


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/cloudevents+json",
    ],
)
async def test_json_comes_under_several_names(media_type: str) -> None:
    assert await read(pieces(JSON), {"content-type": media_type}) == JSON


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "text/json-ish", "application/json; charset=latin-1", "json", ""],
)
async def test_another_media_type_is_415(media_type: str) -> None:
    rejection = await refusal(pieces(JSON), {"content-type": media_type})
    assert isinstance(rejection, UnsupportedMediaType)


def raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(body) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(JSON, mtime=0)),
        ("GZIP", gzip.compress(JSON[:9], mtime=0) + gzip.compress(JSON[9:], mtime=0)),
        ("deflate", zlib.compress(JSON)),
        ("deflate", raw_deflate(JSON)),
        ("zstd", zstandard.compress(JSON)),
        ("identity", JSON),
    ],
)
async def test_encodings_are_undone(encoding: str, body: bytes) -> None:
    assert await read(pieces(body), {"content-encoding": encoding}) == JSON


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "compress"])
async def test_another_encoding_is_415_and_says_which_are_known(encoding: str) -> None:
    rejection = await refusal(pieces(JSON), {"content-encoding": encoding})
    assert isinstance(rejection, UnsupportedMediaType)
    assert rejection.headers["Accept-Encoding"] == "gzip, zstd, deflate"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
async def test_a_broken_encoding_is_400(encoding: str) -> None:
    assert isinstance(
        await refusal(pieces(b"rubbish"), {"content-encoding": encoding}), InvalidRequest
    )
    half = gzip.compress(JSON)[:-12]
    assert isinstance(await refusal(pieces(half), {"content-encoding": "gzip"}), InvalidRequest)


@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 200 << 20])
async def test_a_bomb_is_413_and_is_never_inflated_whole(size: int) -> None:
    for encoding, bomb in (
        ("gzip", gzip.compress(bytes(size), 1)),
        ("deflate", zlib.compress(bytes(size), 1)),
        ("zstd", zstandard.compress(bytes(size))),
    ):
        rejection = await refusal(pieces(bomb), {"content-encoding": encoding})
        assert isinstance(rejection, PayloadTooLarge)


async def test_ten_mebibytes_are_taken_and_one_byte_more_is_413_without_reading_on() -> None:
    half = bytes(BODY_BYTES_MAX // 2)
    assert len(await read(pieces(half, half))) == BODY_BYTES_MAX
    client = pieces(half, half, b"x", half, half)
    rejection = await refusal(client)
    assert isinstance(rejection, PayloadTooLarge)
    assert len(client.messages) == 2
    untouched = pieces(half)
    await refusal(untouched, {"content-length": str(BODY_BYTES_MAX + 1)})
    assert len(untouched.messages) == 1


async def test_a_client_that_leaves_gets_no_answer() -> None:
    gone: dict[str, Any] = {"type": "http.disconnect"}
    begun: dict[str, Any] = {"type": "http.request", "body": JSON[:9], "more_body": True}
    for messages in ([gone], [begun, gone]):
        with pytest.raises(ClientGone):
            await read(Client(messages))


async def test_the_budget_bounds_all_bodies_and_is_given_back() -> None:
    budget = Budget(400)
    assert isinstance(await refusal(pieces(bytes(60), bytes(60)), None, budget), Overloaded)
    assert budget.left == 400
    hold = Hold(budget, "one")
    hold.take(80)
    assert isinstance(await refusal(pieces(bytes(30)), None, budget), Overloaded)
    hold.give_back()
    assert await read(pieces(bytes(100)), None, budget) == bytes(100)
    assert budget.left == 400


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3000)), max_size=60))
def test_whatever_some_accounts_hold_the_next_one_has_room(asked: list[tuple[str, int]]) -> None:
    budget, holds, accounts = Budget(10_000), [], set()
    for account, size in asked:
        hold = Hold(budget, account)
        with contextlib.suppress(Overloaded):
            hold.take(size)
            holds.append(hold)
            accounts.add(account)
    assert budget.left >= int(10_000 * 0.75 ** len(accounts))
    last = Hold(budget, "another")
    last.take(budget.left // 4)
    for hold in [*holds, *holds, last]:
        hold.give_back()
    assert budget.left == 10_000
