"""Bodies in `multipart/form-data`: parameters and external tables beside the query.

A part without a file name is a field: `query`, `param_*` or a setting, as in the URL. A part with
one is a table of the request's own, whose format and columns the fields `<name>_format`,
`<name>_structure` or `<name>_types` tell. Unlike a server, which stops at 128 KiB
(`http_max_field_value_size`), a field may be as long as the body.

`application/x-www-form-urlencoded` is no form here, nor with a server: curl -d sends it, and the
body is the query.
"""

import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from local_stack.exceptions import engine_error
from local_stack.statements import quoted, quoted_name, tokens

BOUNDARY = re.compile(r'multipart/form-data\b.*?\bboundary=(?:"([^"]+)"|([^;\s]+))', re.IGNORECASE)
ATTRIBUTE = re.compile(rb'\b(filename|name)\*?=(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))', re.IGNORECASE)


@dataclass(frozen=True)
class ExternalTable:
    """A table that a request brings for its own query.

    structure  Its columns as in CREATE TABLE.
    data       The file that its rows lie in, from its start.
    """

    name: str
    structure: str
    format: str
    data: IO[bytes]

    @property
    def create(self) -> str:
        """The statement that makes it, empty."""
        return f"CREATE TEMPORARY TABLE {quoted_name(self.name)} ({self.structure})"

    def fill(self, path: str) -> str:
        """The statement that reads its rows from a path."""
        format_name = self.format if self.format.isidentifier() else quoted_name(self.format)
        name = quoted_name(self.name)
        return f"INSERT INTO {name} FROM INFILE {quoted(path)} FORMAT {format_name}"

    @property
    def drop(self) -> str:
        """The statement that forgets it."""
        return f"DROP TEMPORARY TABLE IF EXISTS {quoted_name(self.name)}"


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart form; empty for any other body."""
    found = BOUNDARY.match(content_type.strip())
    return (found[1] or found[2]).encode("latin-1") if found else b""


def read_form(
    body: IO[bytes], boundary: bytes, args: Mapping[str, str], new_file: Callable[[], IO[bytes]]
) -> tuple[dict[str, str], list[ExternalTable]]:
    """The fields and the tables of a form, whose parts may refer to `args` of the URL.

    Raises EngineError if it is no form, ends too early, or a table lacks its columns.
    """
    fields: dict[str, str] = {}
    files: dict[str, IO[bytes]] = {}
    size = os.fstat(body.fileno()).st_size
    if not size:
        raise engine_error(36, "The form is empty", "BAD_ARGUMENTS")
    try:
        with mmap.mmap(body.fileno(), size, access=mmap.ACCESS_READ) as data:
            for head, start, end in parts(data, boundary):
                name, is_file = disposition(head)
                if not is_file:
                    fields[name] = fields.get(name, "") + data[start:end].decode()
                    continue
                files[name] = new_file()
                with memoryview(data) as view, view[start:end] as content:
                    files[name].write(content)
                files[name].flush()
        found = {**args, **fields}
        tables = [external_table(name, found, file) for name, file in files.items()]
    except BaseException as error:
        for file in files.values():
            file.close()
        if isinstance(error, UnicodeDecodeError):
            raise engine_error(36, f"A field is not in UTF-8: {error}", "BAD_ARGUMENTS") from error
        raise
    of_tables = {f"{each}_{what}" for each in files for what in ("format", "structure", "types")}
    return {name: value for name, value in fields.items() if name not in of_tables}, tables


def parts(data: mmap.mmap, boundary: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The head of each part, and where its content lies."""
    mark = b"--" + boundary
    at = 0 if data[: len(mark)] == mark else data.find(b"\r\n" + mark) + 2
    while True:
        at += len(mark)
        if data[at : at + 2] == b"--":
            return
        head_end = data.find(b"\r\n\r\n", at)
        end = data.find(b"\r\n" + mark, head_end + 4)
        if data[at : at + 2] != b"\r\n" or head_end < 0 or end < 0:
            raise engine_error(36, "The multipart form is damaged or ends early", "BAD_ARGUMENTS")
        yield data[at + 2 : head_end], head_end + 4, end
        at = end + 2


def disposition(head: bytes) -> tuple[str, bool]:
    """The name of a part, and whether it is a file."""
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-disposition:"):
            found = {key.lower(): value or bare for key, value, bare in ATTRIBUTE.findall(line)}
            if b"name" in found:
                return found[b"name"].decode(errors="replace"), b"filename" in found
    raise engine_error(36, "A part of the form has no name", "BAD_ARGUMENTS")


def external_table(name: str, args: Mapping[str, str], data: IO[bytes]) -> ExternalTable:
    """The table that a part makes with the arguments that describe it."""
    structure, types = args.get(f"{name}_structure", ""), args.get(f"{name}_types", "")
    if types and not structure:
        pairs = enumerate(split_types(types), start=1)
        structure = ", ".join(f"_{number} {each}" for number, each in pairs)
    if not structure:
        raise engine_error(
            36,
            f"Neither structure nor types have not been provided for external table {name}. "
            f"Use fields {name}_structure or {name}_types to do so",
            "BAD_ARGUMENTS",
        )
    return ExternalTable(name, structure, args.get(f"{name}_format", "TabSeparated"), data)


def split_types(types: str) -> list[str]:
    """The types of a list, cut at the commas outside brackets."""
    cuts = [token for token in tokens(types) if token.text == "," and token.depth == 0]
    starts = [0, *(cut.end for cut in cuts)]
    ends = [*(cut.start for cut in cuts), len(types)]
    return [types[start:end].strip() for start, end in zip(starts, ends, strict=True)]
