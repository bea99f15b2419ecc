-- 0002_events: every event and every dead letter, one row each, with its verdict; and one marker for each block.
-- Why    What is stored for a block wins: states are filled from here, claims are refilled from here, people look here.
-- Reads  the counter's inserts: one INSERT per block, one part (partitioned by block time, which is one value per block).
-- Marker The last row of a block (verdict marker, empty keys): the block is in, and `properties` says which source ranges are covered.
-- Exact  A position (log_*) appears once; a row whose position another row supersedes is history, see 0004.
-- Undo   DROP TABLE events;
CREATE TABLE events
(
    account              LowCardinality(String) COMMENT 'whose it is',
    event_name           LowCardinality(String) COMMENT 'as sent; empty for a dead letter',
    external_customer_id String COMMENT 'the client''s id of its customer',
    timestamp            DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'when the usage happened; billing periods are cut on this',
    event_id             String CODEC(ZSTD(1)) COMMENT 'idempotency key',
    ingested_at          DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'when Tallylog took it',
    timestamp_given      Bool COMMENT 'whether the client sent the timestamp',
    source               LowCardinality(String) COMMENT 'origin, as sent',
    properties           String CODEC(ZSTD(1)) COMMENT 'JSON text as sent; a dead letter''s bytes; a marker''s covered ranges',
    verdict              LowCardinality(String) COMMENT 'counted, duplicate, an error cause, dead_letter, or marker',
    detail               String CODEC(ZSTD(1)) COMMENT 'why, in words',
    warnings             LowCardinality(String) COMMENT 'comma-separated',
    feature_id           LowCardinality(String) COMMENT 'the feature that it matched',
    aggregation          LowCardinality(String) COMMENT 'of that feature',
    value                Decimal(38, 18) COMMENT 'what the feature aggregates, 0 where there is none',
    text                 String CODEC(ZSTD(1)) COMMENT 'canonical text of the value for COUNT_UNIQUE, and for LATEST when it is a text',
    is_text              Bool COMMENT 'whether the value is a text',
    group_key            String CODEC(ZSTD(1)) COMMENT 'group of a bucketed MAX: = and its canonical text; empty for none',
    grain                UInt16 COMMENT 'seconds of a state''s span: 3600, or less for small buckets',
    first_epoch          UInt16 COMMENT 'position of the first occurrence of a duplicate',
    first_offset         UInt64 CODEC(Delta, ZSTD(1)),
    first_index          UInt32,
    log_topic            LowCardinality(String) COMMENT 'where the producer''s record is',
    log_epoch            UInt16,
    log_partition        UInt16,
    log_offset           UInt64 CODEC(Delta, ZSTD(1)),
    log_index            UInt32 CODEC(Delta, ZSTD(1)),
    superseded_epoch     UInt16 COMMENT 'position of the row that this one replaces',
    superseded_offset    Int64 DEFAULT -1 CODEC(Delta, ZSTD(1)) COMMENT '-1: replaces none',
    superseded_index     UInt32,
    block_epoch          UInt16 COMMENT 'where the counter read it',
    block_partition      UInt16,
    block_offset         UInt64 CODEC(Delta, ZSTD(1)),
    block_index          UInt32 CODEC(Delta, ZSTD(1)),
    block_time           DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'the log''s append time of the block',
    catalog_version      UInt32 CODEC(Delta, ZSTD(1)) COMMENT 'the catalog it was matched with',
    owner                UInt64 CODEC(Delta, ZSTD(1)),
    INDEX event_id_bloom event_id TYPE bloom_filter(0.005) GRANULARITY 1,
    INDEX block_offset_range block_offset TYPE minmax GRANULARITY 1,
    INDEX superseded_range superseded_offset TYPE minmax GRANULARITY 1,
    CONSTRAINT owner_is_current CHECK owner >= joinGet('{database}.owners', 'owner', toUInt32(block_epoch * 65536 + block_partition))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(block_time)
ORDER BY (account, event_name, external_customer_id, timestamp)  -- every read names account and event name first
SETTINGS non_replicated_deduplication_window = 10000;
