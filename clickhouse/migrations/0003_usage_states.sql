-- 0003_usage_states: running aggregates per account, feature, customer and hour: one table for all eight aggregations.
-- Why    A month holds millions of events and at most 744 hours; totals are read from hours.
-- Reads  events (0002), counted rows only. The counter has parsed the values; the view only sums.
-- Exact  For whole spans (an hour; 15 minutes or a minute for small buckets). The part-spans at the two ends of a period come from events.
-- Marker A row with empty keys for each block partition says up to which offset the states reach; same part, same moment.
-- Undo   DROP VIEW usage_states_mv; DROP TABLE usage_states;
CREATE TABLE usage_states
(
    account              LowCardinality(String),
    feature_id           LowCardinality(String) COMMENT 'empty in a marker',
    external_customer_id String,
    span                 DateTime('UTC') COMMENT 'start of the hour, or of the shorter span of a small bucket',
    group_key            String,
    block_epoch          UInt16 COMMENT '0 but in a marker',
    block_partition      UInt16 COMMENT '0 but in a marker',
    event_count          SimpleAggregateFunction(sum, UInt64),
    value_sum            SimpleAggregateFunction(sum, Decimal(76, 18)),
    value_time_sum       SimpleAggregateFunction(sum, Decimal(76, 18)) COMMENT 'sum of value * milliseconds since 1970',
    value_max            SimpleAggregateFunction(max, Decimal(38, 18)),
    latest               SimpleAggregateFunction(max, Tuple(timestamp DateTime64(3, 'UTC'), ingested_at DateTime64(3, 'UTC'), log_partition UInt16, log_offset UInt64, log_index UInt32, is_text Bool, value Decimal(38, 18), text String)),
    uniques              AggregateFunction(uniqExact, Nullable(String)),
    upto                 SimpleAggregateFunction(max, UInt64) COMMENT 'offset of the last block in the states, in a marker',
    owner                SimpleAggregateFunction(max, UInt64),
    CONSTRAINT owner_is_current CHECK feature_id != '' OR owner >= joinGet('{database}.owners', 'owner', toUInt32(block_epoch * 65536 + block_partition))
)
ENGINE = AggregatingMergeTree
ORDER BY (account, feature_id, external_customer_id, span, group_key, block_epoch, block_partition)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW usage_states_mv TO usage_states AS
SELECT
    account,
    feature_id,
    external_customer_id,
    toDateTime(if(verdict = 'marker', 0, intDiv(toUnixTimestamp(timestamp), grain) * grain), 'UTC') AS span,
    group_key,
    if(verdict = 'marker', events.block_epoch, 0) AS block_epoch,
    if(verdict = 'marker', events.block_partition, 0) AS block_partition,
    countIf(verdict = 'counted') AS event_count,
    sumIf(CAST(events.value, 'Decimal(76, 18)'), aggregation IN ('SUM', 'AVG', 'SUM_WITH_MULTIPLIER', 'WEIGHTED_SUM')) AS value_sum,
    sumIf(CAST(events.value, 'Decimal(76, 18)') * toUnixTimestamp64Milli(timestamp), aggregation = 'WEIGHTED_SUM') AS value_time_sum,
    maxIf(events.value, aggregation = 'MAX') AS value_max,
    maxIf((timestamp, ingested_at, log_partition, log_offset, log_index, is_text, events.value, text), aggregation = 'LATEST') AS latest,
    uniqExactState(if(aggregation = 'COUNT_UNIQUE', text, NULL)) AS uniques,
    max(block_offset) AS upto,
    max(events.owner) AS owner
FROM events
WHERE verdict IN ('counted', 'marker')
GROUP BY account, feature_id, external_customer_id, span, group_key, block_epoch, block_partition;
