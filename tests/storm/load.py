"""The producers of a storm: over HTTP and Kafka, one by one and many at once."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import httpx
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.e2e.running import Tallylog, client
from tests.storm.events import Sent, Source, World
from tests.storm.journal import Journal, Outcome

ANSWER_S = 15.0
"""The gateway answers within its deadline, 10 s: what takes longer is unknown."""
AGAIN_S = 0.2
PAUSE_S = 60.0


class Answer(NamedTuple):
    """What became of a send, why, and whether it was refused as it should never be."""

    outcome: Outcome
    why: str = ""
    wrong: bool = False


def answered(status: int, retry_after: str, text: str = "") -> Answer:
    """What an answer of the gateway says: what is sent is good, so all but 202 and 503 is wrong."""
    if status == 202:
        return Answer("acked")
    honest = status == 503 and retry_after.isdigit()
    outcome: Outcome = "unknown" if status >= 500 else "refused"
    return Answer(outcome, f"{status} {text[:200]}", wrong=not honest)


class Http:
    """Sends over HTTP; raises nothing."""

    def __init__(self, tallylog: Tallylog, path: str) -> None:
        self._client = client(tallylog.base_url, tallylog.api_key)
        self._client.timeout = httpx.Timeout(ANSWER_S)
        self._path = path

    def __call__(self, sent: Sent) -> Answer:
        """POST it once."""
        try:
            answer = self._client.post(self._path, content=sent.body)
        except httpx.ConnectError as error:
            return Answer("refused", repr(error))  # nobody listens: nothing was sent
        except httpx.HTTPError as error:
            return Answer("unknown", repr(error))
        return answered(answer.status_code, answer.headers.get("retry-after", ""), answer.text)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()


class Native:
    """Writes to the account's own topic, with librdkafka's idempotent producer."""

    def __init__(self, tallylog: Tallylog) -> None:
        self._topic = f"events.{tallylog.account}"
        self._settings = {
            "bootstrap.servers": tallylog.kafka,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 0,
            "message.timeout.ms": int(ANSWER_S * 1000),
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,
        }
        self._producer = Producer(self._settings)

    def __call__(self, sent: Sent, partition: int = -1) -> Answer:
        """Write one record, and wait for its delivery report."""
        reports: list[KafkaError | None] = []

        def report(error: KafkaError | None, _: Message) -> None:
            reports.append(error)

        try:
            self._producer.produce(self._topic, sent.body, partition=partition, on_delivery=report)
        except (KafkaException, BufferError) as error:
            self._replace()
            return Answer("refused", repr(error))  # it never came into the queue
        while not reports:
            self._producer.poll(1.0)
        if reports[0] is None:
            return Answer("acked")
        if reports[0].fatal():
            self._replace()
        return Answer("unknown", reports[0].str())

    def _replace(self) -> None:
        self.close()
        self._producer = Producer(self._settings)

    def close(self) -> None:
        """Give up what is on its way, which was reported."""
        self._producer.purge()
        self._producer.flush(1.0)


class Load:
    """The producers, each with a thread and a source of its own. Begins paused.

    Some send what is not acked again until it is, with the same ids; the others leave it as it is.
    """

    def __init__(self, tallylog: Tallylog, world: World, journal: Journal, pace: float) -> None:
        self._world = world
        self._journal = journal
        self._pace = pace
        self._tallylog = tallylog
        self.round = 0
        self._failure: BaseException | None = None
        self._going = threading.Event()
        self._ending = threading.Event()
        self._idle = [threading.Event() for _ in MANNERS]
        self._threads = [
            threading.Thread(target=self._produce, args=(number,), name=f"producer {number}")
            for number in range(len(MANNERS))
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._going.set()
        for thread in self._threads:
            thread.join()

    @contextmanager
    def on(self, round_: int) -> Iterator[None]:
        """Send for the length of a block, which is one round; on leaving nothing is under way."""
        self.round = round_
        self._going.set()
        try:
            yield
        finally:
            self._going.clear()
            deadline = time.monotonic() + PAUSE_S
            for number, idle in enumerate(self._idle):
                if not idle.wait(max(0.0, deadline - time.monotonic())):
                    failure = self._failure
                    raise RuntimeError(f"{MANNERS[number].name} does not end") from failure

    def _produce(self, number: int) -> None:
        try:
            send = MANNERS[number].connect(self._tallylog)
            while not self._ending.is_set():
                self._idle[number].set()
                self._going.wait()
                self._idle[number].clear()
                self._send_round(number, send)
            send.close()
        except BaseException as error:
            self._failure = error
            raise

    def _send_round(self, number: int, send: Http | Native) -> None:
        """Send until the round ends, or the storm."""
        manner, round_ = MANNERS[number], self.round
        source = Source(self._world, round_, number, len(MANNERS), self._journal.settled)
        while self._going.is_set() and not self._ending.is_set():
            started = time.monotonic()
            sent = manner.make(source)
            while True:
                answer = send(sent)
                self._journal.note(round_, manner.name, sent, *answer)
                if answer.outcome == "acked" or not (manner.insists and self._going.is_set()):
                    break
                time.sleep(AGAIN_S)
            self._ending.wait(max(0.0, started + manner.every_s / self._pace - time.monotonic()))


@dataclass(frozen=True)
class Manner:
    """How one producer works.

    every_s  From one send to the next.
    insists  Whether it sends again what is not acked, until it is.
    """

    name: str
    connect: Callable[[Tallylog], Http | Native]
    make: Callable[[Source], Sent]
    every_s: float
    insists: bool


def _single(tallylog: Tallylog) -> Http:
    return Http(tallylog, "/v1/events")


def _bulk(tallylog: Tallylog) -> Http:
    return Http(tallylog, "/v1/events/bulk")


MANNERS = (
    Manner("single", _single, Source.single, 0.05, insists=True),
    Manner("bulk", _bulk, lambda source: source.bulk(20, 60), 0.5, insists=True),
    Manner("bulk, once", _bulk, lambda source: source.bulk(1, 60), 0.5, insists=False),
    Manner("array", Native, lambda source: source.array(3, 30), 0.25, insists=True),
    Manner("record, once", Native, Source.single, 0.05, insists=False),
    Manner("bulk without ids", _bulk, lambda s: s.nameless_bulk(5, 20), 0.5, insists=True),
    Manner("array without ids", Native, lambda s: s.nameless_array(1, 10), 0.25, insists=False),
)
