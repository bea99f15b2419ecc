"""ClickHouse's exceptions as its HTTP interface reports them: a code, a status, a text."""

import re

WRAPPED = re.compile(r"^(?:Streaming query failed|Failed to create connection): ")
EXCEPTION = re.compile(r"Code: (\d+)\. DB::Exception: ")
BAD_REQUEST = (  # what can't be parsed, and what doesn't fit
    "6 15 25 26 27 32 33 36 37 38 40 41 44 53 62 72 89 117 123 167 168 223 271 321 "
    "373 374 376 408 427 441 456 457 618 675 676"
)
NOT_FOUND = "46 47 50 56 60 63 73 78 81 115 139 152 336 372 511"  # names that don't exist
STATUS: dict[int, int] = {
    **{int(code): 400 for code in BAD_REQUEST.split()},
    **{int(code): 404 for code in NOT_FOUND.split()},
    **dict.fromkeys((192, 193, 497, 512, 516), 403),
    **dict.fromkeys((76, 202, 209, 439), 503),
    **{48: 501, 159: 408, 194: 401, 229: 413, 381: 411},
}


class EngineError(Exception):
    """ClickHouse's own error: its code, and its text as a server words it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @classmethod
    def of(cls, error: Exception, version: str) -> "EngineError":
        """The error behind an exception: its own code, or a server's for what is not its own."""
        text = WRAPPED.sub("", str(error)).strip()
        codes = EXCEPTION.findall(text)
        code = int(codes[0]) if codes else 1001
        if not codes:
            text = f"{type(error).__name__}: {text} (STD_EXCEPTION)"
        text = EXCEPTION.sub("", text)
        text = re.sub(r"\s*\(version [^)]*\)\.?", "", text)
        name = re.search(r"\(([A-Z][A-Z0-9_]+)\)$", text)
        if name:  # said twice when one layer wraps another
            text = text.replace(f" ({name[1]})", "") + f" ({name[1]})"
        return cls(code, f"Code: {code}. DB::Exception: {text} (version {version})")


def engine_error(code: int, text: str, name: str) -> EngineError:
    """An error of the interface, worded as ClickHouse words its own."""
    return EngineError(code, f"Code: {code}. DB::Exception: {text}. ({name})")


def exception_block(message: str, tag: str) -> bytes:
    """How a server ends an answer that failed on the way."""
    text = message.encode() + b"\n"
    mark = tag.encode()
    return b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (
        mark,
        text,
        len(text),
        mark,
    )
