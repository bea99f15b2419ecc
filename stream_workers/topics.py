"""Makes the topics that the workers own, and asks how many partitions they have."""

import asyncio
import logging

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, TopicAlreadyExistsError, for_code

from schemas.limits import MESSAGE_BYTES_MAX
from schemas.topics import RESENT, block_topic
from stream_workers.settings import WorkerSettings

RESENT_PARTITIONS = 1
RETENTION_MS = 7 * 24 * 3_600_000
AGAIN_S = 0.2
log = logging.getLogger(__name__)


async def ensure_topics(settings: WorkerSettings) -> int:
    """Create the block topic and `resent` where they are missing; the block partitions' number.

    Waits for the broker: it may be starting at the same time.
    """
    blocks = block_topic(settings.block_epoch)
    admin = await _connected(settings.kafka)
    try:
        common = {
            "max.message.bytes": str(MESSAGE_BYTES_MAX),
            "retention.ms": str(RETENTION_MS),
        }
        wanted = [
            NewTopic(
                blocks,
                settings.block_partitions,
                settings.replication,
                topic_configs=common | {"message.timestamp.type": "LogAppendTime"},
            ),
            NewTopic(RESENT, RESENT_PARTITIONS, settings.replication, topic_configs=common),
        ]
        answer = await admin.create_topics(wanted, timeout_ms=30_000)
        for topic, code, *_ in answer.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise for_code(code)(topic)
        while True:
            described = await admin.describe_topics([blocks])
            if not described[0]["error_code"] and described[0]["partitions"]:
                return len(described[0]["partitions"])
    finally:
        await admin.close()


async def _connected(servers: str) -> AIOKafkaAdminClient:
    """A client of the broker, as soon as it answers."""
    said = False
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        try:
            await admin.start()
            return admin
        except KafkaConnectionError as error:
            await admin.close()
            if not said:
                log.warning("waiting for the log at %s: %s", servers, error)
                said = True
            await asyncio.sleep(AGAIN_S)
