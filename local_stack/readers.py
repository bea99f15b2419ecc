"""Readers: analysts who may look at one account's events, and at nothing else.

A reader's name is `reader_<account>`; its password is drawn by `tallylog reader`, and its hash lies
in the engine's folder. What keeps a reader to its account is the engine itself:

- Its connection has the role `reader` alone, which may SELECT from the views of the database
  `readers` (`SET ROLE`; the engine's one user has its own rights by the role `operator`).
- The views read as the user `rows_of_readers`, which sees the rows of the account that the
  connection's `log_comment` ends with: a row policy, applied before any condition of the reader's.
- Settings are read only, and bound time, memory, threads and the size of an answer.

What the engine lets everybody do is refused by what its parser makes of a statement: all but one
SELECT, DESCRIBE or EXISTS without SETTINGS; tables of `system` that tell of others; functions that
read other things than their arguments.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PREFIX = "reader_"
DATABASE = "readers"
VIEWS = ("metered_events", "dead_letters")
AT_ONCE = 1
"""Queries of readers that run at once; each has one thread, so a core is left to others."""
WAITING_MAX = 16
OF_ONE_MAX = 4
"""Queries of one account that run or wait."""
QUERY_BYTES_MAX = 64 * 1024
TIME_S = 30
DELIVERY_S = TIME_S + 10
"""From a query's turn to the end of its answer: a reader that doesn't read it holds a place."""
_ACCOUNT = re.compile(r"[a-zA-Z0-9_-]{1,64}")

SETTINGS: Mapping[str, str] = {
    "database": DATABASE,
    "max_execution_time": str(TIME_S),
    "max_threads": "1",
    "max_block_size": "8192",  # limits are looked at between blocks
    "max_result_rows": "1000000",
    "max_result_bytes": str(256 << 20),
    "max_rows_to_read": "1000000000",
    "max_bytes_to_read": str(16 << 30),
    "max_bytes_before_external_group_by": "0",
    "max_bytes_before_external_sort": "0",
    "max_bytes_ratio_before_external_group_by": "0",
    "max_bytes_ratio_before_external_sort": "0",
    "max_query_size": str(QUERY_BYTES_MAX),
    "max_ast_elements": "5000",
    "max_expanded_ast_elements": "20000",
    "max_ast_depth": "200",
    "max_subquery_depth": "20",
    "max_parser_depth": "300",
    "max_parser_backtracks": "100000",
    "max_partitions_to_read": "1000",
    "function_range_max_elements_in_block": "1000000",
    "function_sleep_max_microseconds_per_block": "1",
    "use_query_cache": "0",
    "priority": "10",  # everybody else has 1, and readers wait for them between blocks
    "readonly": "1",
}
"""Of every query of a reader, beside its memory and its account; none can be changed."""


@dataclass(frozen=True)
class Reader:
    """Who asks: somebody of an account."""

    account: str


class Readers:
    """The readers of an engine: a file for each account, with its password's hash."""

    def __init__(self, engine_folder: Path) -> None:
        self._folder = engine_folder / "readers"

    def create(self, account: str) -> str:
        """Give an account's reader a new password. Raises ValueError for what is no account."""
        if not _ACCOUNT.fullmatch(account):
            raise ValueError(f"{account!r} is no account's id")
        password = secrets.token_urlsafe(24)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self._folder / f".{account}.new"
        new.write_text(_hash(password))
        new.chmod(0o600)
        new.replace(self._folder / account)
        return password

    def remove(self, account: str) -> bool:
        """Let an account's reader in no more; whether there was one."""
        if not _ACCOUNT.fullmatch(account) or not (self._folder / account).exists():
            return False
        (self._folder / account).unlink()
        return True

    def find(self, user: str, password: bytes) -> Reader | None:
        """The reader of this name and password."""
        account = user.removeprefix(PREFIX)
        if account == user or not _ACCOUNT.fullmatch(account):
            return None
        try:
            wanted = (self._folder / account).read_text()
        except FileNotFoundError:
            wanted = ""
        right = secrets.compare_digest(_hash(password.decode("utf-8", "replace")), wanted)
        return Reader(account) if right else None


def _hash(password: str) -> str:
    """Passwords are drawn with 192 bits: nobody tries them all, so one round is enough."""
    return hashlib.sha256(password.encode()).hexdigest()


STATEMENTS = frozenset("SelectWithUnionQuery DescribeQuery ExistsTableQuery".split())
SYSTEM_TABLES = frozenset(
    "one numbers numbers_mt zeros zeros_mt tables columns databases settings functions formats "
    "data_type_families time_zones".split()
)
TABLE_FUNCTIONS = frozenset("numbers numbers_mt zeros zeros_mt generate_series values null".split())
DATABASES = re.compile(r"(?:system|information_schema)\.", re.IGNORECASE)
FUNCTIONS = re.compile(
    r"file|eval\w*|joinGet\w*|dict\w+|ai\w+|catboost\w*|naiveBayes\w*|getServer\w*|getMacro|"
    r"showCertificate|filesystem\w*|hasColumnInTable|logTrace|sleep\w*|addressTo\w*|"
    r"transaction\w*|getMergeTreeSetting|getMaxTableName\w*|generateSerialID|serverUUID|"
    r"getClientHTTPHeader|demangle|currentRequestURL|fuzz\w+|python",
    re.IGNORECASE,
)
_NODE = re.compile(r"^( *)(\w+)(?: (\S+))?", re.MULTILINE)


def forbidden(tree: str, table_functions: frozenset[str]) -> str:
    """What a reader may not ask for in a statement, as EXPLAIN AST draws it; empty: nothing.

    `table_functions` are the engine's, in small letters: one may stand behind IN as well.
    """
    nodes = [match.groups() for match in _NODE.finditer(tree)]
    if not nodes or nodes[0][1] not in STATEMENTS:
        return f"a statement other than SELECT ({nodes[0][1] if nodes else 'none'})"
    outer = ""
    for _, kind, name in nodes:
        match kind:
            case "Identifier" | "TableIdentifier" if DATABASES.match(name or ""):
                database, table = (name or "").split(".")[:2]
                if database != "system" or table not in SYSTEM_TABLES:
                    return f"{database}.{table}"
            case "Function" if outer == "TableExpression" and name not in TABLE_FUNCTIONS:
                return f"{name}()"
            case "Function" if FUNCTIONS.fullmatch(name or ""):
                return f"{name}()"
            case "Function" if (name or "").lower() in table_functions - ALSO_OF_VALUES:
                return f"{name}()"
            case "ColumnsApplyTransformer":
                return "APPLY"
            case "Set":
                return "SETTINGS"
        outer = kind
    return ""


ALSO_OF_VALUES = TABLE_FUNCTIONS | {"format"}
