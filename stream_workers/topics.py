"""Makes the topics that the workers own, and asks how many partitions they have."""

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from schemas.limits import MESSAGE_BYTES_MAX
from schemas.topics import RESENT, block_topic
from stream_workers.settings import WorkerSettings

RESENT_PARTITIONS = 1
RETENTION_MS = 7 * 24 * 3_600_000


async def ensure_topics(settings: WorkerSettings) -> int:
    """Create the block topic and `resent` where they are missing; the block partitions' number."""
    blocks = block_topic(settings.block_epoch)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
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
