-- event_rows: every row of one event id of an account, superseded ones too, `rows` at most: those that claimed the id
-- first, newest first; then its duplicates, oldest first.
-- Few    Where fewer come, they need neither order nor count: both take the engine a fifth of a short read.
-- Reads  the granules whose filter has the id, chosen before reading begins: that is quicker for so few.
SELECT
    count() OVER () AS rows_of_id,  -- only: many
    event_id, event_name, external_customer_id, toUnixTimestamp64Milli(events.timestamp) AS timestamp_ms,
    toUnixTimestamp64Milli(ingested_at) AS ingested_at_ms, source, properties, verdict, detail, warnings, feature_id,
    timestamp_given, aggregation, toString(value) AS value_text, text, is_text,
    first_epoch, first_offset, first_index,
    log_topic, log_epoch, log_partition, log_offset, log_index,
    superseded_epoch, superseded_offset, superseded_index,
    block_epoch, block_partition, block_offset, block_index, toUnixTimestamp64Milli(block_time) AS block_time_ms,
    catalog_version
FROM events
WHERE account = {account:String} AND event_id = {event_id:String} AND verdict NOT IN ('marker', 'dead_letter')
  AND external_customer_id = {customer:String}  -- only: customer
ORDER BY verdict = 'duplicate', if(verdict = 'duplicate', 1, -1) * toInt64(block_offset), if(verdict = 'duplicate', 1, -1) * toInt64(block_index)  -- only: many
LIMIT {rows:UInt32}
SETTINGS use_skip_indexes_on_data_read = 0
