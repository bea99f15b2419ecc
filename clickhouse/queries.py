"""Named queries: `queries/<name>.sql`, which any ClickHouse client can run with its parameters."""

import re
from functools import cache
from importlib.resources import files

ONLY = re.compile(r"  -- only: (\w+)$")


@cache
def query(name: str, without: frozenset[str] = frozenset()) -> str:
    """The text of a query; values are bound to its `{parameter:Type}` places by the client.

    A line that ends with `-- only: WHAT` is left out where `without` names it: a column that is
    read costs the engine time, also when it turns out to hold nothing.
    """
    text = (files("clickhouse") / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    found = ((line, ONLY.search(line)) for line in text.split("\n"))
    return "\n".join(line for line, only in found if only is None or only[1] not in without)
