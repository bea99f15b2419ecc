-- The sum of migrations/: dumped by `python -m clickhouse.migrator URL`, not to be run.

CREATE TABLE events
(
    `account` LowCardinality(String) COMMENT 'whose it is',
    `event_name` LowCardinality(String) COMMENT 'as sent; empty for a dead letter',
    `external_customer_id` String COMMENT 'the client\'s id of its customer',
    `timestamp` DateTime64(3, 'UTC') COMMENT 'when the usage happened; billing periods are cut on this' CODEC(Delta(8), ZSTD(1)),
    `event_id` String COMMENT 'idempotency key' CODEC(ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') COMMENT 'when Tallylog took it' CODEC(Delta(8), ZSTD(1)),
    `timestamp_given` Bool COMMENT 'whether the client sent the timestamp',
    `source` String COMMENT 'origin, as sent',
    `properties` String COMMENT 'JSON text as sent; a dead letter\'s bytes; a marker\'s covered ranges' CODEC(ZSTD(1)),
    `verdict` String COMMENT 'counted, duplicate, an error cause, dead_letter, or marker',
    `detail` String COMMENT 'why, in words' CODEC(ZSTD(1)),
    `warnings` String COMMENT 'comma-separated',
    `feature_id` String COMMENT 'the feature that it matched',
    `aggregation` String COMMENT 'of that feature',
    `value` Decimal(38, 18) COMMENT 'what the feature aggregates, 0 where there is none',
    `text` String COMMENT 'canonical text of the value for COUNT_UNIQUE, and for LATEST when it is a text' CODEC(ZSTD(1)),
    `is_text` Bool COMMENT 'whether the value is a text',
    `group_key` String COMMENT 'group of a bucketed MAX: = and its canonical text; empty for none' CODEC(ZSTD(1)),
    `grain` UInt16 COMMENT 'seconds of a state\'s span: 3600, or less for small buckets',
    `first_epoch` UInt16 COMMENT 'position of the first occurrence of a duplicate',
    `first_offset` UInt64 CODEC(Delta(8), ZSTD(1)),
    `first_index` UInt32,
    `log_topic` String COMMENT 'where the producer\'s record is',
    `log_epoch` UInt16,
    `log_partition` UInt16,
    `log_offset` UInt64 CODEC(Delta(8), ZSTD(1)),
    `log_index` UInt32 CODEC(Delta(4), ZSTD(1)),
    `superseded_epoch` UInt16 COMMENT 'position of the row that this one replaces',
    `superseded_offset` Int64 DEFAULT -1 COMMENT '-1: replaces none' CODEC(Delta(8), ZSTD(1)),
    `superseded_index` UInt32,
    `block_epoch` UInt16 COMMENT 'where the counter read it',
    `block_partition` UInt16,
    `block_offset` UInt64 CODEC(Delta(8), ZSTD(1)),
    `block_index` UInt32 CODEC(Delta(4), ZSTD(1)),
    `block_time` DateTime64(3, 'UTC') COMMENT 'the log\'s append time of the block' CODEC(Delta(8), ZSTD(1)),
    `catalog_version` UInt32 COMMENT 'the catalog it was matched with' CODEC(Delta(4), ZSTD(1)),
    `owner` UInt64 CODEC(Delta(8), ZSTD(1)),
    INDEX event_id_bloom event_id TYPE bloom_filter(0.005) GRANULARITY 1,
    INDEX block_offset_range block_offset TYPE minmax GRANULARITY 1,
    INDEX superseded_range superseded_offset TYPE minmax GRANULARITY 1,
    INDEX timestamp_range timestamp TYPE minmax GRANULARITY 1,
    CONSTRAINT owner_is_current CHECK owner = joinGet('owners', 'owner', toUInt32((block_epoch * 65536) + block_partition))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(block_time)
ORDER BY (account, event_name, external_customer_id, timestamp)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192, merge_selector_base = 10;

CREATE TABLE migrations
(
    `number` UInt32 COMMENT 'of the file',
    `name` String,
    `sha256` String COMMENT 'of the file\'s text: a migration is frozen once it is applied',
    `applied_at` DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY number
SETTINGS index_granularity = 8192
COMMENT 'which migrations this database has; two rows of one number are two processes that met';

CREATE TABLE owners
(
    `slot` UInt32 COMMENT 'block epoch * 65536 + block partition',
    `owner` UInt64 COMMENT 'number of the worker that owns the partition now; greater is later'
)
ENGINE = Join(ANY, LEFT, slot)
SETTINGS join_any_take_last_row = 1;

CREATE TABLE usage_states
(
    `account` LowCardinality(String),
    `feature_id` LowCardinality(String) COMMENT 'empty in a marker',
    `external_customer_id` String,
    `span` DateTime('UTC') COMMENT 'start of the hour, or of the shorter span of a small bucket',
    `group_key` String,
    `block_epoch` UInt16 COMMENT '0 but in a marker',
    `block_partition` UInt16 COMMENT '0 but in a marker',
    `event_count` SimpleAggregateFunction(sum, UInt64),
    `value_sum` SimpleAggregateFunction(sum, Decimal(76, 18)),
    `value_time_sum` SimpleAggregateFunction(sum, Decimal(76, 18)) COMMENT 'sum of value * milliseconds since 1970',
    `value_max` SimpleAggregateFunction(max, Decimal(38, 18)),
    `latest` SimpleAggregateFunction(max, Tuple(
        timestamp DateTime64(3, 'UTC'),
        ingested_at DateTime64(3, 'UTC'),
        log_partition UInt16,
        log_offset UInt64,
        log_index UInt32,
        is_text Bool,
        value Decimal(38, 18),
        text String)),
    `uniques` AggregateFunction(uniqExact, Nullable(String)),
    `upto` SimpleAggregateFunction(max, UInt64) COMMENT 'offset of the last block in the states, in a marker',
    `owner` SimpleAggregateFunction(max, UInt64),
    CONSTRAINT owner_is_current CHECK (feature_id != '') OR (owner = joinGet('owners', 'owner', toUInt32((block_epoch * 65536) + block_partition)))
)
ENGINE = AggregatingMergeTree
ORDER BY (account, feature_id, external_customer_id, span, group_key, block_epoch, block_partition)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 512;

CREATE VIEW dead_letters
(
    `account` LowCardinality(String),
    `ingested_at` DateTime64(3, 'UTC'),
    `reason` String,
    `detail` String,
    `bytes` String,
    `log_topic` String,
    `log_epoch` UInt16,
    `log_partition` UInt16,
    `log_offset` UInt64,
    `log_index` UInt32
)
COMMENT 'records, and events of records, that could not be read'
AS SELECT
    account,
    ingested_at,
    splitByChar(' ', detail)[1] AS reason,
    detail,
    properties AS bytes,
    log_topic,
    log_epoch,
    log_partition,
    log_offset,
    log_index
FROM events
WHERE (event_name = '') AND (verdict = 'dead_letter');

CREATE VIEW ledger
(
    `block_epoch` UInt16,
    `block_partition` UInt16,
    `block_offset` UInt64,
    `block_time` DateTime64(3, 'UTC'),
    `covered` String,
    `catalog_version` UInt32,
    `owner` UInt64
)
COMMENT 'one row for each block stored: how far the log is counted'
AS SELECT
    block_epoch,
    block_partition,
    block_offset,
    block_time,
    properties AS covered,
    catalog_version,
    owner
FROM events
WHERE (account = '') AND (event_name = '') AND (verdict = 'marker');

CREATE VIEW metered_events
(
    `account` LowCardinality(String),
    `event_name` LowCardinality(String),
    `external_customer_id` String,
    `timestamp` DateTime64(3, 'UTC'),
    `event_id` String,
    `ingested_at` DateTime64(3, 'UTC'),
    `source` String,
    `properties` String,
    `verdict` String,
    `detail` String,
    `warnings` Array(String),
    `feature_id` String,
    `aggregation` String,
    `value` Decimal(38, 18),
    `text` String
)
COMMENT 'one row for each event received, with its verdict'
AS SELECT
    account,
    event_name,
    external_customer_id,
    timestamp,
    event_id,
    ingested_at,
    source,
    properties,
    verdict,
    detail,
    if(empty(warnings), [], splitByChar(',', warnings)) AS warnings,
    feature_id,
    aggregation,
    value,
    text
FROM events
WHERE (verdict NOT IN ('marker', 'dead_letter')) AND ((account, event_id, block_epoch, block_offset, block_index) NOT IN (
    SELECT
        account,
        event_id,
        superseded_epoch,
        toUInt64(superseded_offset),
        superseded_index
    FROM events
    WHERE superseded_offset >= 0
));

CREATE MATERIALIZED VIEW usage_states_mv TO usage_states
(
    `account` LowCardinality(String),
    `feature_id` LowCardinality(String),
    `external_customer_id` String,
    `span` DateTime('UTC'),
    `group_key` String,
    `block_epoch` UInt16,
    `block_partition` UInt16,
    `event_count` UInt64,
    `value_sum` Decimal(76, 18),
    `value_time_sum` Decimal(76, 18),
    `value_max` Decimal(38, 18),
    `latest` Tuple(
        DateTime64(3, 'UTC'),
        DateTime64(3, 'UTC'),
        UInt16,
        UInt64,
        UInt32,
        Bool,
        Decimal(38, 18),
        String),
    `uniques` AggregateFunction(uniqExact, Nullable(String)),
    `upto` UInt64,
    `owner` UInt64
)
AS SELECT
    account,
    feature_id,
    external_customer_id,
    toDateTime(if(verdict = 'marker', 0, intDiv(toUnixTimestamp(timestamp), grain) * grain), 'UTC') AS span,
    group_key,
    if(verdict = 'marker', events.block_epoch, 0) AS block_epoch,
    if(verdict = 'marker', events.block_partition, 0) AS block_partition,
    countIf(verdict = 'counted') AS event_count,
    sumIf(CAST(events.value, 'Decimal(76, 18)'), (aggregation IN ('SUM', 'AVG', 'SUM_WITH_MULTIPLIER', 'WEIGHTED_SUM'))) AS value_sum,
    sumIf(CAST(events.value, 'Decimal(76, 18)') * toUnixTimestamp64Milli(timestamp), aggregation = 'WEIGHTED_SUM') AS value_time_sum,
    maxIf(events.value, aggregation = 'MAX') AS value_max,
    maxIf((timestamp, ingested_at, log_partition, log_offset, log_index, is_text, events.value, text), aggregation = 'LATEST') AS latest,
    uniqExactState(if(aggregation = 'COUNT_UNIQUE', text, NULL)) AS uniques,
    max(block_offset) AS upto,
    max(events.owner) AS owner
FROM events
WHERE verdict IN ('counted', 'marker')
GROUP BY
    account,
    feature_id,
    external_customer_id,
    span,
    group_key,
    block_epoch,
    block_partition;
