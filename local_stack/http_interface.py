"""ClickHouse's HTTP interface in front of the embedded engine, as an ASGI application.

It speaks as a server does: `query` in the URL or the body, data of an INSERT in the body,
settings and `param_*` in the URL, FORMAT in the query, multipart forms with external tables,
`X-ClickHouse-*` headers, exception codes and statuses, compression both ways.

What it adds to the engine:

- An INSERT is handed to the engine when its body is whole. A client that goes away, or a body cut
  short, inserts nothing.
- Answers stream: beyond HELD_BYTES they leave as the engine makes them. An error after that ends
  the answer with the server's exception block and breaks off the connection, so that no client
  takes it for complete.
- A `query_id` is one query's at a time, and works in `system.processes` and `KILL QUERY`, which
  never waits in a queue.

Not served: roles and users.
"""

import asyncio
import base64
import contextlib
import json
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from local_stack import readers
from local_stack.bodies import Body, Disconnected, Receive, Request, Scope
from local_stack.compressed_blocks import BlockEncoder
from local_stack.encodings import BadEncoding, Encoder, chosen_encoding
from local_stack.engine import DATABASE, Engine, Query, Summary, descriptor_path, set_statement
from local_stack.exceptions import STATUS, EngineError, engine_error, exception_block
from local_stack.outbox import Outbox
from local_stack.readers import AT_ONCE, OF_ONE_MAX, QUERY_BYTES_MAX, WAITING_MAX, Reader
from local_stack.sandbox import suspicious
from local_stack.statements import LIVE_QUERIES, format_of, tokens, with_query_ids
from local_stack.turns import NoPlace, Turns

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger(__name__)

DAMAGE = {
    32: "ATTEMPT_TO_READ_AFTER_EOF",
    40: "CHECKSUM_DOESNT_MATCH",
    89: "UNKNOWN_COMPRESSION_METHOD",
}
QUERIES_AT_ONCE = 16
INSERTS_AT_ONCE = 8
TOO_MANY = 202
REFUSED_S = 1.0
"""How long a reader waits to hear that there is no place: who asks again at once gets no sooner
one, but would take the time of those who send events."""
SESSION_TIMEOUT_S = 60
SESSION_TIMEOUT_MAX_S = 3600

NOT_SETTINGS = frozenset(
    "query database default_format query_id session_id session_timeout session_check close_session "
    "user password quota_key compress decompress stacktrace buffer_size wait_end_of_query "
    "client_protocol_version role enable_http_compression log_comment".split()
)


@dataclass
class Session:
    """A connection that outlives its requests, with its temporary tables and what SET said."""

    connection: Any
    expires: float
    busy: bool = True


class HttpInterface:
    """The application. It asks for `user` and `password`; an empty password means none."""

    def __init__(self, engine: Engine, user: str = "default", password: str = "") -> None:
        self.engine = engine
        self.user = user
        self.password = password
        self._queries = ThreadPoolExecutor(QUERIES_AT_ONCE, thread_name_prefix="query")
        self._inserts = ThreadPoolExecutor(INSERTS_AT_ONCE, thread_name_prefix="insert")
        self._control = ThreadPoolExecutor(2, thread_name_prefix="control")
        self._readers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="reader")
        self._turns = Turns(AT_ONCE, WAITING_MAX, OF_ONE_MAX)
        self._running: set[str] = set()
        self._sessions: dict[str, Session] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request.of(scope)
        if request.path in {"/ping", "/replicas_status"}:
            await answer_text(send, 200, "Ok.\n")
        elif request.path not in {"/", "/query"}:
            text = f"There is no handle {request.path}\n\nUse / or /ping for health checks.\n"
            await answer_text(send, 404, text)
        elif request.method not in {"GET", "HEAD", "POST"}:
            await answer_text(send, 501, f"There is no handle for {request.method}\n")
        elif request.method != "POST" and "query" not in request.args:
            await answer_text(send, 200, "Ok.\n")
        else:
            await self._answer(request, receive, send)

    def close(self) -> None:
        """Forget sessions and let no query begin; what runs is for the engine to end."""
        for pool in (self._queries, self._inserts, self._control, self._readers):
            pool.shutdown(wait=False, cancel_futures=True)
        for session in self._sessions.values():
            if not session.busy:
                session.connection.close()
        self._sessions.clear()

    async def _answer(self, request: Request, receive: Receive, send: Send) -> None:
        headers = self._headers(request)
        try:
            reader = self._authenticate(request)
            if reader is not None:
                require_simple(request)
                receive = at_most(QUERY_BYTES_MAX, receive)
            with Body(request) as body:
                await body.read(receive)
                query = (
                    reader_query(request, body, reader) if reader else self._query(request, body)
                )
                headers["x-clickhouse-query-id"] = query.query_id
                gone = asyncio.ensure_future(disconnection(receive))
                try:
                    async with self._turn(reader, gone):
                        await self._run(request, query, headers, gone, send)
                finally:
                    gone.cancel()
        except Disconnected:
            return
        except BadEncoding as error:
            await answer_error(
                send, engine_error(error.code, str(error), DAMAGE[error.code]), headers
            )
        except EngineError as error:
            if error.code == TOO_MANY:
                await asyncio.sleep(REFUSED_S)
            await answer_error(send, error, headers)
        except Exception as error:  # ours, or the disk's: a server gives every failure a code
            log.exception("a query failed in the interface")
            await answer_error(send, EngineError.of(error, self.engine.version), headers)

    async def _run(
        self,
        request: Request,
        query: Query,
        headers: dict[str, str],
        gone: "asyncio.Future[None]",
        send: Send,
    ) -> None:
        """Run a query on a thread and send its answer, whole or as it comes."""
        loop = asyncio.get_running_loop()
        blocks = BlockEncoder() if request.flag("compress") else None
        encoder = Encoder(self._encoding(request), blocks)
        outbox = Outbox(loop, encoder, request.flag("wait_end_of_query"))
        abandon = partial(self._abandon, query, outbox)
        headers["x-clickhouse-format"] = query.format
        headers["content-type"] = self.engine.content_types.get(query.format, "text/plain")
        if outbox.encoder.encoding:
            headers["content-encoding"] = outbox.encoder.encoding
        with self._registered(query.query_id), self._session(request) as session:
            work = loop.run_in_executor(self._pool(query), self._work, query, outbox, session)
            gone.add_done_callback(lambda it: None if it.cancelled() else abandon())
            try:
                async with asyncio.timeout(readers.DELIVERY_S if query.reader else None):
                    await self._deliver(request, work, outbox, headers, send)
            except TimeoutError:
                abandon()
                if outbox.leaving:
                    raise Disconnected from None
                raise too_slow() from None
            finally:
                outbox.close()
                with contextlib.suppress(EngineError, Disconnected):
                    await asyncio.shield(work)
                outbox.discard()

    def _pool(self, query: Query) -> ThreadPoolExecutor:
        """The threads that a query waits for: inserts never wait behind long SELECTs."""
        if query.reader is not None:
            return self._readers
        if query.insert is not None:
            return self._inserts
        return self._control if is_control(query.sql) else self._queries

    def _abandon(self, query: Query, outbox: "Outbox") -> None:
        """The client has gone, or doesn't read: a reader's query ends, its place is another's."""
        outbox.close()
        if query.reader is not None:
            with contextlib.suppress(RuntimeError):  # the interface is closing
                self._control.submit(self.engine.end_of_reader, query)

    async def _deliver(
        self,
        request: Request,
        work: "asyncio.Future[Summary]",
        outbox: "Outbox",
        headers: dict[str, str],
        send: Send,
    ) -> None:
        """Send the answer: whole when it is small or was waited for, in pieces when it is not."""
        await outbox.until_flowing(work)
        if not outbox.flowing:
            headers["x-clickhouse-summary"] = summary_text(await work)
            headers["content-length"] = str(outbox.size)
            outbox.leaving = True
            await send(start_message(200, headers))
            for piece in outbox.whole():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        tag = secrets.token_hex(8)
        headers["x-clickhouse-exception-tag"] = tag
        headers["x-clickhouse-summary"] = summary_text(Summary())
        outbox.leaving = True
        await send(start_message(200, headers))
        async for piece in outbox.pieces(work):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        try:
            await work
        except EngineError as error:
            block = outbox.encoder.feed(exception_block(error.message, tag))
            block += outbox.encoder.finish()
            await send({"type": "http.response.body", "body": block, "more_body": True})
            return  # without an end: the server breaks off the connection
        await send({"type": "http.response.body", "body": b""})

    def _work(self, query: Query, outbox: "Outbox", session: Session | None) -> Summary:
        """On a thread: run the query and fill the outbox."""
        if query.reader is not None:
            if outbox.closed:  # it went away while it waited
                raise Disconnected
            connection = self.engine.connect_reader(query.reader, query)
        else:
            connection = session.connection if session else self.engine.connect()
        before = self._settings_before(connection, query) if session else ""
        try:
            summary = self.engine.run(connection, query, outbox.write)
            outbox.finish()
            return summary
        finally:
            if session is None:
                connection.close()
            elif before:
                with contextlib.suppress(EngineError):
                    self.engine.ask(connection, before)

    def _settings_before(self, connection: Any, query: Query) -> str:
        """A SET that gives a session back the settings that a request changes for itself alone."""
        names = query.settings.keys() - {"database", "log_comment"}  # every request sets these
        if not names:
            return ""
        listed = ", ".join(f"'{name}'" for name in names if name.isidentifier())
        sql = f"SELECT name, value FROM system.settings WHERE name IN ({listed or 'NULL'})"  # noqa: S608 identifiers only
        rows = json.loads(self.engine.ask(connection, sql, "JSONCompact"))["data"]
        return set_statement(dict(rows)) if rows else ""

    def _query(self, request: Request, body: "Body") -> Query:
        """The query that a request and its body make."""
        insert, sql = body.insert, body.sql
        if not sql.strip():
            raise engine_error(62, "Syntax error: empty query", "SYNTAX_ERROR")
        default_format = request.args.get("default_format") or request.headers.get(
            "x-clickhouse-format", "TabSeparated"
        )
        format_name = default_format
        if insert is None:
            count, changes = self.engine.kind(sql)
            if count > 1:
                raise engine_error(
                    62, "Syntax error (Multi-statements are not allowed)", "SYNTAX_ERROR"
                )
            if changes and request.method == "GET":
                raise engine_error(
                    164, "Cannot execute query in readonly mode: use POST", "READONLY"
                )
            self._refuse(sql)
            sql = with_query_ids(sql)
            format_name = format_of(sql) or default_format
        else:
            path = descriptor_path(body.descriptor)
            if suspicious(insert.before + insert.after):
                self._refuse(insert.reading(path), path)
        for table in body.tables:
            if self.engine.kind(table.create)[0] != 1:
                raise engine_error(62, "Syntax error in an external table", "SYNTAX_ERROR")
            self._refuse(table.create)
        args = body.args
        query_id = args.get("query_id") or str(uuid.uuid4())
        described = {
            f"{table.name}_{what}"
            for table in body.tables
            for what in ("format", "structure", "types")
        }
        settings = {
            name: value
            for name, value in args.items()
            if name not in {*NOT_SETTINGS, *described} and not name.startswith("param_")
        }
        database = args.get("database") or request.headers.get("x-clickhouse-database")
        if database or "session_id" not in args:
            settings["database"] = database or DATABASE
        settings["log_comment"] = query_id
        return Query(
            sql=sql,
            format=format_name,
            params={k[6:]: v for k, v in args.items() if k.startswith("param_")},
            settings=settings,
            query_id=query_id,
            tables=body.tables,
            insert=insert,
            data=body.descriptor,
        )

    def _refuse(self, sql: str, infile: str = "") -> None:
        """Raise EngineError (497) if a statement reaches for what is not the engine's own."""
        if what := self.engine.refusal(sql, infile):
            text = f"Not enough privileges: {what} is not for queries over HTTP"
            raise engine_error(497, text, "ACCESS_DENIED")

    def _headers(self, request: Request) -> dict[str, str]:
        return {
            "x-clickhouse-server-display-name": self.engine.display_name,
            "x-clickhouse-timezone": self.engine.timezone,
            "x-clickhouse-query-id": request.args.get("query_id", ""),
        }

    def _encoding(self, request: Request) -> str:
        if not request.flag("enable_http_compression"):
            return ""
        return chosen_encoding(request.headers.get("accept-encoding", ""))

    def _authenticate(self, request: Request) -> Reader | None:
        """Who asks: a reader, or the operator (None). Raises EngineError (516) as a server does."""
        user, password = credentials(request)
        if reader := self.engine.readers.find(user, password):
            return reader
        right = secrets.compare_digest(password, self.password.encode())
        if user not in {self.user, *(["default"] if not self.password else [])} or not right:
            raise unauthenticated(
                f"{user}: Authentication failed: password is incorrect, or there is no user "
                "with such name"
            )
        return None

    @contextlib.asynccontextmanager
    async def _turn(
        self, reader: Reader | None, gone: "asyncio.Future[None]"
    ) -> AsyncIterator[None]:
        """Wait for a reader's turn, and hold its place; everybody else has one.

        Raises EngineError (202) where too many wait, Disconnected when the client goes meanwhile.
        """
        if reader is None:
            yield
            return
        try:
            turn = self._turns.ask(reader.account)
        except NoPlace:
            raise too_many() from None
        try:
            await asyncio.wait({turn, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                raise Disconnected
            if turn.exception() is not None:
                raise too_many()
            yield
        finally:
            self._turns.end(reader.account, turn)

    @contextlib.contextmanager
    def _registered(self, query_id: str) -> Iterator[None]:
        """Hold a query id while its query runs; a second query with it is refused."""
        if query_id in self._running:
            raise engine_error(
                216,
                f"Query with id = {query_id} is already running",
                "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
            )
        self._running.add(query_id)
        try:
            yield
        finally:
            self._running.discard(query_id)

    @contextlib.contextmanager
    def _session(self, request: Request) -> Iterator[Session | None]:
        """The session that a request names, for its length; None if it names none."""
        now = time.monotonic()
        for name in [k for k, s in self._sessions.items() if not s.busy and s.expires < now]:
            self._sessions.pop(name).connection.close()
        name = request.args.get("session_id", "")
        if not name:
            yield None
            return
        session = self._sessions.get(name)
        if session is None:
            if request.flag("session_check"):
                raise engine_error(372, f"Session {name} not found", "SESSION_NOT_FOUND")
            connection = self.engine.connect()
            self.engine.ask(connection, set_statement({"database": DATABASE}))
            session = self._sessions[name] = Session(connection, now)
        elif session.busy:
            raise engine_error(
                373, f"Session {name} is locked by a concurrent client", "SESSION_IS_LOCKED"
            )
        session.busy = True
        try:
            yield session
        finally:
            asked = request.args.get("session_timeout", "")
            timeout = int(asked) if asked.isdigit() else SESSION_TIMEOUT_S
            session.expires = time.monotonic() + min(timeout, SESSION_TIMEOUT_MAX_S)
            session.busy = False
            if request.flag("close_session"):
                self._sessions.pop(name).connection.close()


READER_ARGS = frozenset(
    "query database default_format user password compress wait_end_of_query buffer_size readonly "
    "enable_http_compression query_id client_protocol_version role".split()
)


def require_simple(request: Request) -> None:
    """Raise EngineError for what a reader's request may not bring beside its statement."""
    for name in request.args:
        if name not in READER_ARGS and not name.startswith("param_"):
            raise engine_error(164, f"Cannot modify '{name}' setting in readonly mode", "READONLY")
    if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise engine_error(497, "A reader's query is sent as it is", "ACCESS_DENIED")
    if request.headers.get("content-type", "").strip().lower().startswith("multipart"):
        raise engine_error(497, "A reader brings no tables and no forms", "ACCESS_DENIED")


def at_most(size: int, receive: Receive) -> Receive:
    """The same body, of so many bytes at most. Raises EngineError (62)."""
    left = size

    async def next_piece() -> MutableMapping[str, Any]:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise engine_error(62, f"Max query size exceeded: {size} bytes", "SYNTAX_ERROR")
        return message

    return next_piece


def reader_query(request: Request, body: Body, reader: Reader) -> Query:
    """A reader's query: its id is ours, so that it can't take that of another."""
    if body.insert is not None:
        raise engine_error(497, "Not enough privileges: a reader writes nothing", "ACCESS_DENIED")
    if not body.sql.strip():
        raise engine_error(62, "Syntax error: empty query", "SYNTAX_ERROR")
    default = request.args.get("default_format") or request.headers.get("x-clickhouse-format")
    return Query(
        sql=body.sql,
        format=format_of(body.sql) or default or "TabSeparated",
        params={name[6:]: value for name, value in body.args.items() if name.startswith("param_")},
        query_id=str(uuid.uuid4()),
        reader=reader,
    )


def credentials(request: Request) -> tuple[str, bytes]:
    """User and password of a request, from the one place that has them.

    Raises EngineError (516) if they come from several, or in a scheme that isn't known.
    """
    headers, args = request.headers, request.args
    by_header = "x-clickhouse-user" in headers or "x-clickhouse-key" in headers
    by_args = "user" in args or "password" in args
    kind, _, encoded = headers.get("authorization", "").partition(" ")
    if by_header + by_args + bool(kind) > 1:
        raise unauthenticated(
            "Invalid authentication: it is not allowed to use X-ClickHouse HTTP headers, the "
            "Authorization HTTP header and authentication via parameters simultaneously"
        )
    if by_header:
        user = headers.get("x-clickhouse-user", "default")
        return user or "default", headers.get("x-clickhouse-key", "").encode("latin-1")
    if not kind:
        return args.get("user") or "default", args.get("password", "").encode()
    if kind.lower() != "basic":
        text = f"Invalid authentication: {kind!r} HTTP Authorization scheme is not supported"
        raise unauthenticated(text)
    try:
        name, _, key = base64.b64decode(encoded, validate=True).partition(b":")
        return name.decode() or "default", key
    except ValueError as error:
        text = "Invalid authentication: the Authorization header is not in base64"
        raise unauthenticated(text) from error


def unauthenticated(text: str) -> EngineError:
    """A refusal of whoever asks."""
    return engine_error(516, text, "AUTHENTICATION_FAILED")


def too_many() -> EngineError:
    """A refusal of a reader for whom there is no place."""
    text = "Too many simultaneous queries of readers: ask again when one has ended"
    return engine_error(TOO_MANY, text, "TOO_MANY_SIMULTANEOUS_QUERIES")


def too_slow() -> EngineError:
    """The end of a reader's query of which nothing came in time."""
    text = f"Timeout exceeded: a reader's query has {readers.DELIVERY_S} seconds"
    return engine_error(159, text, "TIMEOUT_EXCEEDED")


def is_control(sql: str) -> bool:
    """Whether a statement kills or watches others, and so must not wait behind them."""
    head = [token.word for _, token in zip(range(2), tokens(sql), strict=False)]
    return head == ["KILL", "QUERY"] or LIVE_QUERIES in sql


def summary_text(summary: Summary) -> str:
    """The X-ClickHouse-Summary header: numbers as text, as a server writes them."""
    return json.dumps({name: str(value) for name, value in asdict(summary).items()})


def start_message(status: int, headers: dict[str, str]) -> dict[str, Any]:
    """ASGI's start of an answer."""
    pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


async def answer_text(
    send: Send, status: int, text: str, headers: dict[str, str] | None = None
) -> None:
    """Answer with a short text."""
    body = text.encode()
    base = {"content-type": "text/plain; charset=UTF-8"} | (headers or {})
    await send(start_message(status, base | {"content-length": str(len(body))}))
    await send({"type": "http.response.body", "body": body})


async def answer_error(send: Send, error: EngineError, headers: dict[str, str]) -> None:
    """Answer with an exception: its code in a header, its text in the body."""
    kept = {name: value for name, value in headers.items() if name.startswith("x-clickhouse")}
    kept["x-clickhouse-exception-code"] = str(error.code)
    if error.code == 194:
        kept["www-authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
    await answer_text(send, STATUS.get(error.code, 500), error.message + "\n", kept)


async def disconnection(receive: Receive) -> None:
    """Return when the client goes away; only for requests whose body is read."""
    while (await receive())["type"] != "http.disconnect":
        pass
