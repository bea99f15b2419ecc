"""What keeps the engine's process to its own folder, whatever a query asks for.

The engine's grants (`clickhouse_users.xml`) refuse most sources; but chDB takes itself for a
command-line tool, and some things ask for no grant there: the function `file()`, engines such as
Executable and EmbeddedRocksDB, `disk(…)` in SETTINGS, `ATTACH TABLE … FROM`. So:

- On Linux the kernel confines the process (Landlock): its folder, and what Python itself reads, is
  all it sees; it starts no program and opens no connection.
- Everywhere, `reaches_out` refuses statements that say so, in the engine's own formatting.
"""

import ctypes
import os
import re
import shutil
import struct
import sysconfig
import tempfile
from pathlib import Path

from local_stack.statements import tokens

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
NO_NEW_PRIVILEGES = 38
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
READ = READ_FILE | READ_DIR
RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # by the ABI that brought them
EXECUTE = 1
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15  # the others are for folders
BIND_AND_CONNECT_TCP = 3  # ABI 4
SIGNALS_AND_SOCKETS = 3  # to processes outside: ABI 6
SYSTEM = (  # what Python and the engine look at
    "/usr/lib /usr/lib64 /usr/share/zoneinfo /lib /lib64 /etc/ld.so.cache /etc/localtime "
    "/etc/timezone /sys/fs/cgroup /sys/devices/system /dev/urandom /proc/sys /proc/meminfo "
    "/proc/cpuinfo /proc/stat /proc/loadavg /proc/uptime /proc/filesystems /proc/self/statm "
    "/proc/self/stat /proc/self/status /proc/self/cgroup /proc/self/mountinfo /proc/self/mounts "
    "/proc/self/limits /proc/self/maps /proc/self/auxv"  # not all of /proc: it has everyone's
).split()  # environment. Without auxv the engine takes for it what lies behind `environ`, and dies.
THREADS = "/proc/self/task"
"""Where the engine reads how busy its threads are: each that may not throws an exception at every
query and merge, which costs half of a short query (docs/decisions/0029)."""

SUSPICIOUS = re.compile(
    r"\b(?:infile|outfile|file|engine|disk|attach|eval|python|arrowstream|executable)\b",
    re.IGNORECASE | re.ASCII,
)
FUNCTIONS = frozenset({"file", "eval", "python", "arrowstream", "executable", "disk"})
ENGINES = re.compile(
    r"\w*MergeTree|Memory|Null|Log|TinyLog|StripeLog|Set|Join|Buffer|Merge|Alias|GenerateRandom|"
    r"View|MaterializedView|Atomic"
)
OF_TABLES = frozenset({"TABLE", "EXISTS", "INTO", "VIEW", "."})  # before a table's own name
CALLERS = re.compile(r"array|map", re.IGNORECASE)


def confine(folder: Path) -> bool:
    """Confine this process and its future threads to a folder; whether the kernel can.

    Threads that it has already stay free. For good; what is needed from outside must be open:
    sockets, logs.
    """
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    scratch.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(CREATE_RULESET, None, 0, 1) if os.path.isdir("/proc/self/fd") else -1
    if abi < 1:
        return False
    rights = sum(bits for since, bits in RIGHTS.items() if since <= abi)
    attributes = struct.pack(
        "QQQ",
        rights,
        BIND_AND_CONNECT_TCP if abi >= 4 else 0,
        SIGNALS_AND_SOCKETS if abi >= 6 else 0,
    )[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = libc.syscall(CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    python = (sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib"))
    for path in {*SYSTEM, *python, str(Path(__file__).parent)}:
        _allow(libc, ruleset, path, READ)
    if _forget_environment():
        _allow(libc, ruleset, THREADS, READ_FILE)
    _allow(libc, ruleset, "/dev/null", READ | WRITE_FILE)
    _allow(libc, ruleset, str(folder), rights & ~EXECUTE)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    confined: bool = libc.syscall(RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return confined


def _forget_environment() -> bool:
    """Blank the environment that /proc shows of this process and its threads; whether that worked.

    It is what the process was started with, perhaps with somebody's secrets. Its variables stay.
    """
    of_memory = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[47:49]
    start, end = map(int, of_memory)  # proc(5): env_start, env_end
    if not start:
        return False
    for name, value in os.environ.items():
        os.putenv(name, value)  # the C library's copies lie elsewhere from now on
    ctypes.memset(start, 0, end - start)
    return True


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Allow rights on a path and what lies under it, if it exists."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= FILE_RIGHTS
    rule = struct.pack("=Qi", rights, descriptor)
    libc.syscall(ADD_RULE, ruleset, 1, rule, 0)
    os.close(descriptor)


def suspicious(sql: str) -> bool:
    """Whether a statement holds a word that `reaches_out` should look at."""
    return SUSPICIOUS.search(sql) is not None


def reaches_out(formatted: str, infile: str = "") -> str:
    """What a statement, as the engine formats it, would reach outside its folder; empty: nothing.

    `infile` is the one file that an INSERT may read.
    """
    words = ["", *(token.text for token in tokens(formatted)), "", "", ""]
    for before, first, second, third, fourth in zip(*(words[n:] for n in range(5)), strict=False):
        match first, second:
            case "INTO", "OUTFILE":
                return "INTO OUTFILE"
            case "FROM", "INFILE" if third[1:-1] != infile:
                return "FROM INFILE"
            case "ENGINE", "=" if words[1] in {"CREATE", "ATTACH", "REPLACE"}:
                if not ENGINES.fullmatch(name_of(third)):
                    return f"ENGINE = {third}"
            case "FROM", _ if words[1] == "ATTACH" and second.startswith("'"):
                return "ATTACH … FROM"
            case name, "(" if name_of(name).lower() in FUNCTIONS and before not in OF_TABLES:
                return f"{name_of(name)}()"
            case name, "(" if CALLERS.match(name) and [name_of(third), fourth] == ["file", ","]:
                return "file()"  # the name of a function, which these call
            case "APPLY", name if name_of(name) == "file":
                return "file()"
    return ""


def name_of(text: str) -> str:
    """A name without its quotes."""
    return text[1:-1] if text[:1] in {"`", '"'} else text
