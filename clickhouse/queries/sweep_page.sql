-- sweep_page: the unmatched events of a name that no later row supersedes, in a stretch of the primary key.
-- Stretch Behind `after_*` and up to `upto_*` (customer, timestamp in ms); to the end when `to_end`.
-- Exact   A row and the row that supersedes it have the same key, so both lie in the stretch.
SELECT
    event_id,
    external_customer_id,
    toUnixTimestamp64Milli(events.timestamp) AS timestamp_ms,
    timestamp_given,
    toUnixTimestamp64Milli(ingested_at) AS ingested_at_ms,
    source,
    properties,
    log_topic, log_epoch, log_partition, log_offset, log_index,
    block_epoch, block_partition, block_offset, block_index
FROM events
WHERE account = {account:String} AND event_name = {event_name:String}
  AND verdict IN ('unknown_event_name', 'feature_archived')
  AND block_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
  AND (external_customer_id > {after_customer:String}
      OR (external_customer_id = {after_customer:String} AND events.timestamp > fromUnixTimestamp64Milli({after_time:Int64}, 'UTC')))
  AND ({to_end:Bool} OR external_customer_id < {upto_customer:String}
      OR (external_customer_id = {upto_customer:String} AND events.timestamp <= fromUnixTimestamp64Milli({upto_time:Int64}, 'UTC')))
  AND (event_id, block_epoch, block_offset, block_index) NOT IN
  (
      SELECT event_id, superseded_epoch, toUInt64(superseded_offset), superseded_index
      FROM events
      WHERE account = {account:String} AND event_name = {event_name:String}
        AND superseded_offset >= 0
        AND (external_customer_id > {after_customer:String}
            OR (external_customer_id = {after_customer:String} AND timestamp > fromUnixTimestamp64Milli({after_time:Int64}, 'UTC')))
        AND ({to_end:Bool} OR external_customer_id < {upto_customer:String}
            OR (external_customer_id = {upto_customer:String} AND timestamp <= fromUnixTimestamp64Milli({upto_time:Int64}, 'UTC')))
  )
