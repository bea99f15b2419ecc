"""Why a connection refuses what is not yet a request, on top of `schemas.errors`.

Rejection (schemas.errors)
├── RequestTimeout         408  request_timeout
└── HeadersTooLarge        431  headers_too_large
"""

from typing import ClassVar

from schemas.errors import Rejection


class RequestTimeout(Rejection):
    """A request's headers or its body didn't arrive in time."""

    status: ClassVar[int] = 408
    code: ClassVar[str] = "request_timeout"
    title: ClassVar[str] = "Request timeout"

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(
            f"The {what} did not arrive within {seconds:.0f} seconds",
            cure="send it faster, or in smaller requests",
        )


class HeadersTooLarge(Rejection):
    """A request's address and headers are larger, or more, than is taken."""

    status: ClassVar[int] = 431
    code: ClassVar[str] = "headers_too_large"
    title: ClassVar[str] = "Request header fields too large"

    def __init__(self, count_max: int, bytes_max: int) -> None:
        super().__init__(
            "The address and headers are too large",
            cure=f"send at most {count_max} headers, and {bytes_max >> 10} KiB of them with the "
            "address",
        )
