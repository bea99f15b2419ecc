"""The obvious Faust app: a Table of ids and a Table of sums, one event at a time."""

import os
from pathlib import Path

import faust

app = faust.App(
    "obvious",
    broker=f"kafka://{os.environ['TALLYLOG_KAFKA']}",
    store="memory://",
    datadir=os.environ["TALLYLOG_DATA_DIR"],
    topic_partitions=4,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    broker_max_poll_records=5000,
    stream_buffer_maxsize=16384,
    web_enabled=False,
)


class Event(faust.Record, serializer="json"):  # type: ignore[misc,call-arg]
    """What it needs of an event."""

    event_name: str
    external_customer_id: str
    event_id: str
    timestamp: str
    properties: dict  # type: ignore[type-arg]


topic = app.topic("obvious-faust", value_type=Event)
seen = app.Table("seen", default=int, partitions=4)
sums = app.Table("sums", default=float, partitions=4)
counts = {"events": 0}


@app.agent(topic)  # type: ignore[untyped-decorator]
async def meter(stream: faust.StreamT) -> None:
    """Count each id once."""
    async for event in stream:
        counts["events"] += 1
        if event.event_id in seen:
            continue
        seen[event.event_id] = 1
        key = f"{event.external_customer_id}|{event.event_name}|{event.timestamp[:13]}"
        sums[key] += event.properties["credits"] if event.event_name == "model.usage" else 1


@app.timer(0.25)  # type: ignore[untyped-decorator]
async def tell() -> None:
    """Say how far it is, in a file."""
    report = Path(os.environ["TALLYLOG_DATA_DIR"]) / "obvious-faust"
    new = report.with_suffix(".new")
    new.write_text(str(counts["events"]))
    new.replace(report)
