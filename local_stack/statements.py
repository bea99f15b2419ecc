"""Reading SQL just far enough to carry it over HTTP.

The engine parses; the HTTP interface only has to know whether the data of an INSERT follows, what
FORMAT is asked for, and whether a statement reaches for files of this machine. Words count only
outside quotes, comments and brackets.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

TOKEN = re.compile(
    r"""
    (?P<space>   \s+ | (?:--|//)[^\n]*\n? | \#[!\ ][^\n]*\n? | /\*.*?(?:\*/|\Z) )
  | (?P<quoted>  '(?:[^'\\]|\\.|'')*(?:'|\Z) | "(?:[^"\\]|\\.|"")*(?:"|\Z) |
  `(?:[^`\\]|\\.|``)*(?:`|\Z) ) | (?P<heredoc> \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ ) | (?P<word>
  [^\W\d]\w* ) | (?P<open>    [(\[{] ) | (?P<close>   [)\]}] ) | (?P<number>  \d[\w.]* ) |
  (?P<other>   . )
    """,
    re.VERBOSE | re.DOTALL,
)
LIVE_QUERIES = "live_queries"  # the view of system.processes that shows them
QUERY_ID = "if(Settings['log_comment'] != '', Settings['log_comment'], query_id)"


@dataclass(frozen=True)
class Token:
    """One token outside white space: its kind, its text and where it lies."""

    kind: str
    text: str
    start: int
    end: int
    depth: int

    @property
    def word(self) -> str:
        """The keyword in capitals; empty if this is none, or lies inside brackets."""
        return self.text.upper() if self.kind == "word" and self.depth == 0 else ""


@dataclass(frozen=True)
class DataInsert:
    """An INSERT whose data follows the statement: `INSERT INTO t (a, b) FORMAT Native` and then
    bytes.

    before  The statement up to where `FROM INFILE` belongs.
    after   The rest of it, up to the format's name: SETTINGS, or nothing.
    format  The data's format.
    end     Where the statement ends, and the data begins.
    """

    before: str
    after: str
    format: str
    end: int

    def reading(self, path: str) -> str:
        """The same INSERT with its data read from a file that this process has open."""
        return f"{self.before} FROM INFILE {quoted(path)} {self.after} FORMAT {self.format}"


def quoted(value: str) -> str:
    """A text as a SQL literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def quoted_name(name: str) -> str:
    """A name as SQL spells it, whatever it holds."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def tokens(sql: str) -> Iterator[Token]:
    """The tokens of a statement without white space and comments."""
    depth = 0
    for match in TOKEN.finditer(sql):
        kind = match.lastgroup or "other"
        if kind == "tag":
            kind = "heredoc"
        if kind == "close":
            depth = max(0, depth - 1)
        if kind != "space":
            yield Token(kind, match.group(), match.start(), match.end(), depth)
        if kind == "open":
            depth += 1


def data_insert(sql: str) -> DataInsert | None:
    """The INSERT at the head of a text if its data follows it; None for any other statement."""
    settings: Token | None = None
    stream = tokens(sql)
    first = next(stream, None)
    if first is None or first.word != "INSERT":
        return None
    for token in stream:
        match token.word:
            case "SELECT" | "WITH" | "INFILE" | "EXPLAIN" | "WATCH":
                return None
            case "SETTINGS":
                settings = settings or token
            case "VALUES":
                cut = settings.start if settings else token.start
                return DataInsert(sql[:cut], sql[cut : token.start], "Values", token.end)
            case "FORMAT":
                name = next(stream, None)
                if name is None or name.kind != "word":
                    return None
                cut = settings.start if settings else token.start
                after = sql[cut : token.start]
                return DataInsert(sql[:cut], after, name.text, data_start(sql, name.end))
    return None


def data_start(sql: str, end: int) -> int:
    """Where inline data begins after the format's name: past blanks and one line break."""
    while end < len(sql) and sql[end] in " \t\r;":
        end += 1
    return end + 1 if end < len(sql) and sql[end] == "\n" else end


def format_of(sql: str) -> str | None:
    """The format that a statement's FORMAT clause names; None without one."""
    if "FORMAT" not in sql.upper():
        return None
    found = None
    previous = ""
    for token in tokens(sql):
        if previous == "FORMAT" and token.kind == "word":
            found = token.text
        previous = token.word
    return found


def selects(sql: str) -> bool:
    """Whether a statement is a SELECT, whose answer may be large."""
    first = next(tokens(sql), None)
    return first is not None and (first.word in {"SELECT", "WITH", "FROM"} or first.text == "(")


def writing(sql: str, path: str, format_name: str) -> str:
    """A SELECT with its answer written to a new file."""
    found = list(tokens(sql))
    while found and found[-1].text == ";":
        found.pop()
    end = found[-1].end
    into = f"\nINTO OUTFILE {quoted(path)}"
    for first, second in reversed(list(pairwise(found))):
        if first.word == "FORMAT" and second.kind == "word":
            return sql[: first.start] + into + "\n" + sql[first.start : end]
    return sql[:end] + into + f" FORMAT {format_name}"


def with_query_ids(sql: str) -> str:
    """The statement with the query ids that clients gave, where it reads or kills running queries.

    The embedded engine draws ids of its own; the client's is kept in the setting `log_comment`.
    So `KILL QUERY WHERE query_id = …` compares that, and `system.processes` becomes a view of it
    that shows it as `query_id`.
    """
    if not re.search(r"kill|processes", sql, re.IGNORECASE):
        return sql
    found = list(tokens(sql))
    if [token.word for token in found[:2]] == ["KILL", "QUERY"]:
        swaps = [(t, QUERY_ID) for t in found if t.text.strip('`"').lower() == "query_id"]
    else:
        swaps = [
            (third, LIVE_QUERIES)
            for first, second, third in zip(found, found[1:], found[2:], strict=False)
            if [first.text.lower(), second.text, third.text.lower()] == ["system", ".", "processes"]
        ]
    for token, text in reversed(swaps):
        sql = sql[: token.start] + text + sql[token.end :]
    return sql
