"""Whatever fails, and wherever, is answered as a server does: with a code, a text, a status."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from local_stack.engine import Engine
from local_stack.exceptions import EngineError
from local_stack.http_interface import HttpInterface
from local_stack.readers import Readers

VERSION = "26.9.2.1"
FULL = (
    "Code: 241. DB::Exception: (total) memory limit exceeded: would use 488.74 MiB (attempt to "
    "allocate chunk of 1.00 MiB), maximum: 488.28 MiB. (MEMORY_LIMIT_EXCEEDED)"
)
NO_CONNECTION = RuntimeError(f"Failed to create connection: {FULL}")


class Library:
    """The engine's library, of which one call fails."""

    MUTATING = "MUTATING"

    def __init__(self, failing: str = "", error: Exception = NO_CONNECTION) -> None:
        self.failing, self.error = failing, error

    def _may_fail(self, call: str) -> None:
        if self.failing and call.startswith(self.failing):
            raise self.error

    def connect(self, path: str) -> "Library":
        self._may_fail("connect")
        return self

    def classify_query(self, sql: str) -> dict[str, Any]:
        self._may_fail("classify")
        return {"statement_count": 1, "query_class": ""}

    def query(self, sql: str, *_: object, **__: object) -> Any:
        self._may_fail(sql)
        raise AssertionError("this test goes no further")

    def close(self) -> None:
        pass


def engine_on(library: Library) -> Engine:
    """An engine without its folder, on a library that fails."""
    engine = Engine.__new__(Engine)
    engine._connect = library.connect
    engine._path = ""
    engine._first = library
    engine._changes = library.MUTATING
    engine._classify = threading.Lock()
    engine.version, engine.timezone, engine.display_name = VERSION, "UTC", "tallylog"
    engine.content_types = {}
    engine.readers = Readers(Path("no such folder"))
    return engine


def ask(library: Library, sql: str, **args: str) -> httpx.Response:
    """The answer to one query."""
    app = HttpInterface(engine_on(library))

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            return await client.post("/", params={"query": sql, **args}, content=b"1\n")

    answer = asyncio.run(post())
    app.close()
    return answer


@pytest.mark.parametrize("args", [{}, {"session_id": "one"}], ids=["alone", "in a session"])
@pytest.mark.parametrize("failing", ["connect", "classify", "SET"])
def test_memory_that_runs_out_before_the_query_has_the_servers_code(
    failing: str, args: dict[str, str]
) -> None:
    answer = ask(Library(failing), "SELECT 1", **args)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "241")
    assert answer.text == f"{FULL} (version {VERSION})\n"


def test_an_insert_for_which_there_is_no_connection_has_the_servers_code() -> None:
    answer = ask(Library("connect"), "INSERT INTO t FORMAT TSV")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "241")


@pytest.mark.parametrize(
    "error", [MemoryError("std::bad_alloc"), ValueError("vector"), OSError(28, "No space left")]
)
def test_what_has_no_code_gets_the_one_of_a_foreign_exception(error: Exception) -> None:
    answer = ask(Library("SET", error), "SELECT 1")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "1001")
    said = f"Code: 1001. DB::Exception: {type(error).__name__}: {error} (STD_EXCEPTION)"
    assert answer.text == f"{said} (version {VERSION})\n"


def test_an_error_wrapped_by_the_library_reads_like_the_servers_own() -> None:
    assert EngineError.of(NO_CONNECTION, VERSION).code == 241
    streamed = RuntimeError(f"Streaming query failed: {FULL}")
    assert EngineError.of(streamed, VERSION).message == f"{FULL} (version {VERSION})"


@pytest.mark.parametrize(
    ("code", "status"), [(62, 400), (60, 404), (497, 403), (511, 404), (159, 408), (241, 500)]
)
def test_a_code_has_the_servers_status(code: int, status: int) -> None:
    answer = ask(Library("SET", RuntimeError(f"Code: {code}. DB::Exception: No. (X)")), "SELECT 1")
    assert answer.status_code == status
    assert answer.headers["X-ClickHouse-Exception-Code"] == str(code)
