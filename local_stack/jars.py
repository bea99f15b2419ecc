"""The broker's jars: fetched once from Maven Central, checked before every start.

`kafka_jars.txt` names each jar and its SHA-256, so nothing is resolved at run time, and a jar
that is missing, cut short by an interruption, or changed is simply fetched again.
"""

import fcntl
import hashlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from local_stack.errors import DownloadFailed

if TYPE_CHECKING:
    from jgo.maven import MavenContext

ATTEMPTS = 3
CONNECTIONS = 8


@dataclass(frozen=True)
class Jar:
    """One jar of the broker: its Maven coordinate and what it must contain."""

    group: str
    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}.jar"

    def path(self, repository: Path) -> Path:
        """Where the jar lies in a Maven repository on disk."""
        return (
            repository.joinpath(*self.group.split(".")) / self.name / self.version / self.file_name
        )


def broker_jars() -> list[Jar]:
    """The broker's jars, in class path order."""
    jars = []
    for line in files("local_stack").joinpath("kafka_jars.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            coordinate, sha256 = line.split()
            group, name, version = coordinate.split(":")
            jars.append(Jar(group, name, version, sha256))
    return jars


def ensure_jars(cache: Path) -> list[Path]:
    """Make the broker's jars complete in the cache and return their paths, in class path order.

    Shows progress on a terminal, and a few plain lines elsewhere. Two processes that start at
    once take turns. Raises DownloadFailed, naming the jar, when one can't be had whole.
    """
    repository = cache / "maven"
    repository.mkdir(parents=True, exist_ok=True)
    jars = broker_jars()
    if missing := [jar for jar in jars if not is_whole(jar, repository)]:
        with turn(cache / "jars.lock"):
            missing = [jar for jar in missing if not is_whole(jar, repository)]
            with progress_of(len(missing)) as advance:
                fetch_all(missing, repository, advance)
    return [jar.path(repository) for jar in jars]


def is_whole(jar: Jar, repository: Path) -> bool:
    """Whether the jar lies on disk with the content it must have."""
    try:
        with jar.path(repository).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256
    except FileNotFoundError:
        return False


def fetch_all(jars: list[Jar], repository: Path, advance: Callable[[], None]) -> None:
    """Fetch jars side by side; raise DownloadFailed for the first that can't be had."""
    from jgo.maven import MavenContext  # 0.1 s, and once in the life of a machine

    context = MavenContext(repo_cache=repository, local_repos=[], timeout=30)
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="jars") as pool:
        downloads = [pool.submit(fetch, jar, repository, context) for jar in jars]
        try:
            for download in as_completed(downloads):
                download.result()
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def fetch(jar: Jar, repository: Path, context: "MavenContext") -> None:
    """Fetch one jar, again if it comes damaged."""
    reason: object = "the content is not what it should be"
    for _ in range(ATTEMPTS):
        jar.path(repository).unlink(missing_ok=True)  # jgo takes any file that is there for whole
        try:
            context.project(jar.group, jar.name).at_version(jar.version).artifact().resolve()
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
            reason = error
        if is_whole(jar, repository):
            return
    raise DownloadFailed(
        f"{jar.group}:{jar.name}:{jar.version}, which the Kafka broker needs, could not be "
        f"fetched from Maven Central in {ATTEMPTS} attempts: {reason}. Check the network and "
        "start again: what is already there is kept. Or set TALLYLOG_KAFKA to a running broker."
    )


@contextmanager
def turn(lock: Path) -> Iterator[None]:
    """Wait for this process's turn among those that fill the same cache."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def progress_of(total: int) -> Iterator[Callable[[], None]]:
    """Show how far a download is: a bar on a terminal, two lines elsewhere."""
    if not total:
        yield lambda: None
        return
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        console.print(f"fetching the Kafka broker: {total} jars", soft_wrap=True)
        yield lambda: None
        console.print("fetched the Kafka broker", soft_wrap=True)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("fetching the Kafka broker", total=total)
        yield lambda: progress.advance(task)
