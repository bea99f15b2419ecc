"""A refusal: what it is called, which status it has, and the one object that says so.

    Rejection
    ├── InvalidRequest        400  validation_error
    ├── Unauthorized          401  unauthorized
    ├── PermissionDenied      403  permission_denied
    ├── NotFound              404  not_found
    ├── MethodNotAllowed      405  method_not_allowed
    ├── AlreadyExists         409  already_exists
    ├── PayloadTooLarge       413  payload_too_large
    ├── UnsupportedMediaType  415  unsupported_media_type
    ├── TooManyRequests       429  too_many_requests
    │   └── RateExceeded           more of something in a minute than is allowed
    ├── InternalError         500  internal_error
    └── ServiceUnavailable    503  service_unavailable

The class fixes the status, the message says what the client can do. Nothing here knows a web
framework: `answer` turns a rejection into status, body and headers, and each service sends them.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

FAULTS_MAX = 100
"""Faults that one answer lists; a bulk request may have more."""

MESSAGE_FAULTS_MAX = 5
"""Faults that its `message` spells out; `errors` has the rest."""


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with a request.

    pointer  JSON pointer of the value (RFC 6901), "" for the whole body.
    code     Stable name of the fault: `missing`, `too_long`, ...
    detail   What is wrong and what to do about it.
    """

    pointer: str
    code: str
    detail: str


class Rejection(Exception):
    """A request that was not carried out.

    `error` is the short text that clients compare (the documented one where there is one), `cure`
    what to do about it; `details` are values for programs, `headers` go with the answer.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal server error"

    def __init__(
        self,
        error: str,
        *,
        cure: str = "",
        errors: Sequence[Fault] = (),
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.message = f"{error}: {cure}" if cure else error
        self.errors = tuple(errors[:FAULTS_MAX])
        self.details = dict(details or {})
        self.headers = dict(headers or {})


class InvalidRequest(Rejection):
    """The request says something that can't be done as it stands."""

    status = 400
    code = "validation_error"
    title = "Invalid request"

    @classmethod
    def of(cls, faults: Sequence[Fault]) -> "InvalidRequest":
        """The rejection that lists these faults; its text is that of the first."""
        rejection = cls(_text(faults[0]), errors=faults)
        rejection.message = "; ".join(fault.detail for fault in faults[:MESSAGE_FAULTS_MAX])
        return rejection

    @classmethod
    def at(cls, pointer: str, code: str, detail: str) -> "InvalidRequest":
        """The rejection of one value."""
        return cls.of([Fault(pointer, code, detail)])


class Unauthorized(Rejection):
    """No key, or one that is unknown, expired or revoked: the answer doesn't say which."""

    status = 401
    code = "unauthorized"
    title = "Unauthorized"

    def __init__(self) -> None:
        super().__init__(
            "Unauthorized",
            cure="send a valid API key in the x-api-key header",
            headers={"WWW-Authenticate": 'ApiKey realm="tallylog"'},
        )


class PermissionDenied(Rejection):
    """The key is valid but lacks a scope."""

    status = 403
    code = "permission_denied"
    title = "Permission denied"


class NotFound(Rejection):
    """There is no such thing, or it is another account's."""

    status = 404
    code = "not_found"
    title = "Not found"


class MethodNotAllowed(Rejection):
    """The path exists, the method doesn't; `Allow` names those that do."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class AlreadyExists(Rejection):
    """Something that may exist once exists already."""

    status = 409
    code = "already_exists"
    title = "Already exists"


class PayloadTooLarge(Rejection):
    """The body is larger than the route takes."""

    status = 413
    code = "payload_too_large"
    title = "Payload too large"


class UnsupportedMediaType(Rejection):
    """The body is not JSON, or encoded in a way that isn't supported."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class TooManyRequests(Rejection):
    """There is no room for this now; `Retry-After` says when to come back."""

    status = 429
    code = "too_many_requests"
    title = "Too many requests"


class RateExceeded(TooManyRequests):
    """More than `limit` within a minute; the headers say which limit, and when to come back.

    `policy` names the limit, `wait_s` is how long there is no room for one more. What clients wait
    is a whole number of seconds, and enough.
    """

    def __init__(self, error: str, *, policy: str, limit: int, wait_s: float, cure: str) -> None:
        wait = int(wait_s) + 1
        super().__init__(
            error,
            cure=f"wait {wait} s, {cure}",
            details={"policy": policy, "limit": limit, "window_s": 60, "retry_after_s": wait},
            headers={
                "Retry-After": str(wait),
                "RateLimit-Policy": f'"{policy}";q={limit};w=60',
                "RateLimit": f'"{policy}";r=0;t={wait}',
                "X-RateLimit-Limit": str(limit),
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": str(int(time.time()) + wait),
            },
        )


class InternalError(Rejection):
    """A fault of ours."""


class ServiceUnavailable(Rejection):
    """Something this needs is away: the same request will work later."""

    status = 503
    code = "service_unavailable"
    title = "Service unavailable"

    def __init__(self, error: str, *, cure: str = "", retry_after: int = 1) -> None:
        super().__init__(error, cure=cure, headers={"Retry-After": str(retry_after)})


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer, ready to send."""

    status: int
    body: bytes
    headers: dict[str, str]


def answer(rejection: Rejection, accept: str = "") -> Answer:
    """The answer to a rejected request; `application/problem+json` when `accept` asks for it."""
    body = {
        "error": rejection.error,
        "code": rejection.code,
        "message": rejection.message,
        "http_status_code": rejection.status,
        "details": rejection.details,
        "type": f"urn:tallylog:error:{rejection.code}",
        "title": rejection.title,
        "status": rejection.status,
        "detail": rejection.message,
        "errors": rejection.errors,
    }
    media_type = "application/problem+json" if _asks_for_problem(accept) else "application/json"
    return Answer(
        rejection.status,
        msgspec.json.encode(body),
        {"Content-Type": media_type, **rejection.headers},
    )


def shown(value: object, length: int = 64) -> str:
    """A value as an error text may show it: quoted, and cut where it is long."""
    text = value if isinstance(value, str) else str(value)
    return f"'{text}'" if len(text) <= length else f"'{text[:length]}…'"


def pointer(*parts: str | int) -> str:
    """The JSON pointer through these keys and indexes."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _text(fault: Fault) -> str:
    """The documented text of a missing field, else what the fault says."""
    if fault.code == "missing":
        return f"Missing required field: {fault.pointer.removeprefix('/').replace('/', '.')}"
    return fault.detail


def _asks_for_problem(accept: str) -> bool:
    """Whether an Accept header names the type, and not with a weight of 0."""
    for choice in accept.split(","):
        media_type, _, parameters = choice.partition(";")
        if media_type.strip().lower() == "application/problem+json":
            weight = parameters.replace(" ", "").lower().partition("q=")[2]
            return weight.strip("0.") != "" or weight == ""
    return False
