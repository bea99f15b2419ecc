-- 0005_usage_states_granules: states are found in steps of 512 rows, where it took 8192 before.
-- Why    A month of one customer's feature is at most 744 rows. Each part gave 8192 or 16384 for it, and under load there are many.
-- Reads  usage_states (0003): its rows are copied as they are, and the tables exchanged when that is done.
-- Exact  Repeated at any point, or by two processes at once, it leaves the same rows. Counters must not run meanwhile.
-- Cost   The primary index has 16 times as many marks: 27 bytes of memory for 512 rows.
-- Undo   The same with index_granularity = 8192.
CREATE OR REPLACE TABLE usage_states
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
    owner                SimpleAggregateFunction(max, UInt64)
)
ENGINE = AggregatingMergeTree
ORDER BY (account, feature_id, external_customer_id, span, group_key, block_epoch, block_partition)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 512
AS SELECT * FROM usage_states;

-- Only now: a copied marker may be of a partition's earlier owner.
ALTER TABLE usage_states ADD CONSTRAINT IF NOT EXISTS
    owner_is_current CHECK feature_id != '' OR owner >= joinGet('{database}.owners', 'owner', toUInt32(block_epoch * 65536 + block_partition));
