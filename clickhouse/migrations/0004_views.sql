-- 0004_views: what analysts read: events and dead letters without positions, markers or superseded rows; the ledger of blocks.
-- Why    Nobody needs to know about aggregate states, markers or re-sent events to count them.
-- Reads  events (0002).
-- Exact  A re-sent event (its feature was created later) shows only its last row.
-- Undo   DROP VIEW metered_events; DROP VIEW dead_letters; DROP VIEW ledger;
CREATE VIEW metered_events AS
SELECT
    account, event_name, external_customer_id, timestamp, event_id, ingested_at, source, properties,
    verdict, detail, if(empty(warnings), [], splitByChar(',', warnings)) AS warnings, feature_id, aggregation, value, text
FROM events
WHERE verdict NOT IN ('marker', 'dead_letter')
  AND (account, event_id, block_epoch, block_offset, block_index) NOT IN
  (
      SELECT account, event_id, superseded_epoch, toUInt64(superseded_offset), superseded_index
      FROM events WHERE superseded_offset >= 0
  )
COMMENT 'one row for each event received, with its verdict';

CREATE VIEW dead_letters AS
SELECT
    account, ingested_at, splitByChar(' ', detail)[1] AS reason, detail, properties AS bytes,
    log_topic, log_epoch, log_partition, log_offset, log_index
FROM events
WHERE event_name = '' AND verdict = 'dead_letter'
COMMENT 'records, and events of records, that could not be read';

CREATE VIEW ledger AS
SELECT block_epoch, block_partition, block_offset, block_time, properties AS covered, catalog_version, owner
FROM events
WHERE account = '' AND event_name = '' AND verdict = 'marker'
COMMENT 'one row for each block stored: how far the log is counted';
