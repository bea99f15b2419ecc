-- rows_behind: an account's rows behind some points of the block partitions and before others, in the order of the log.
-- Points  `partitions`, and for each of them the last row that is known (`afters`, `rows`) and the first block that
--         is not wanted (`uptos`). `since` (ms) and `lowest` only spare looking at what is older.
-- Unbilled  Whether nothing bills a counted event the catalog alone knows: `unbilled` leaves all of them in.
SELECT
    event_id,
    event_name,
    external_customer_id,
    toUnixTimestamp64Milli(events.timestamp) AS timestamp_ms,
    toUnixTimestamp64Milli(ingested_at) AS ingested_at_ms,
    source,
    if(verdict = 'dead_letter' OR length(properties) > {properties_max:UInt64}, '', properties) AS properties_text,
    verdict,
    detail,
    warnings,
    feature_id,
    length(properties) > {properties_max:UInt64} AS properties_left_out,
    concat(log_topic, '-', toString(log_epoch), '-', toString(log_partition), '-', toString(log_offset), '-', toString(log_index)) AS position,
    block_partition, block_offset, block_index, toUnixTimestamp64Milli(block_time) AS block_time_ms
FROM events
WHERE account = {account:String} AND verdict != 'marker' AND block_epoch = {epoch:UInt16}
  AND block_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
  AND block_offset >= {lowest:UInt64}
  AND (toInt64(block_offset), toInt64(block_index)) >
      (
          transform(block_partition, {partitions:Array(UInt16)}, {afters:Array(Int64)}, toInt64(-1)),
          transform(block_partition, {partitions:Array(UInt16)}, {rows:Array(Int64)}, toInt64(-1))
      )
  AND block_offset < toUInt64(transform(block_partition, {partitions:Array(UInt16)}, {uptos:Array(UInt64)}, toUInt64(0)))
  AND ({event_name:String} = '' OR event_name = {event_name:String})
  AND ({customer:String} = '' OR external_customer_id = {customer:String})
  AND ({source:String} = '' OR source = {source:String})
  AND (empty({verdicts:Array(String)}) OR verdict IN {verdicts:Array(String)})
  AND (empty({warnings:Array(String)})
      OR hasAny(splitByChar(',', warnings), {warnings:Array(String)})
      OR ({unbilled:Bool} AND verdict = 'counted'))
ORDER BY block_partition, block_offset, block_index
LIMIT {limit:UInt32}
