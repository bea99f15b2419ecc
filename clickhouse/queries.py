"""Named queries: `queries/<name>.sql`, which any ClickHouse client can run with its parameters."""

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> str:
    """The text of a query; values are bound to its `{parameter:Type}` places by the client."""
    return (files("clickhouse") / "queries" / f"{name}.sql").read_text(encoding="utf-8")
