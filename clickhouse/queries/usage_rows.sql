-- usage_rows: the events of a name by their properties, in each piece of a range, for usage that no state holds.
-- Why    Ad hoc aggregations and filters read the properties. Exact numbers need the JSON text: the engine's own JSON
--        functions turn them into floats. So events with equal properties come as one row, and Python reads the text.
-- Pieces As in usage and usage_bucketed.
-- Reads  events: the counted ones of `feature`; without one, all of the name that are no duplicates, that no re-sent
--        event supersedes, and whose time is at most 24 h after their receipt.
-- Answer A row for each piece, bucket and properties (empty unless `with_properties`), in no order.
WITH
    {firsts:Array(Int64)} AS firsts,
    {steps:Array(Int64)} AS steps,
    {bucket_firsts:Array(Int64)} AS bucket_firsts,
    {bucket_steps:Array(Int64)} AS bucket_steps,
    toUnixTimestamp64Milli(timestamp) AS at,
    roundDown(at, firsts) AS first,
    transform(first, firsts, steps, toInt64(1)) AS step,
    roundDown(at, bucket_firsts) AS bucket_first,
    transform(bucket_first, bucket_firsts, bucket_steps, toInt64(1)) AS bucket_step
SELECT
    first + intDiv(at - first, step) * step AS piece_start,
    bucket_first + intDiv(at - bucket_first, bucket_step) * bucket_step AS bucket_start,
    if({with_properties:Bool}, properties, '') AS properties_text,
    count() AS event_count,
    sum(toInt128(at)) AS time_sum,
    max((at, toUnixTimestamp64Milli(ingested_at), log_partition, log_offset, log_index)) AS last
FROM events
WHERE account = {account:String}
  AND event_name = {event_name:String}
  AND ({customer:String} = '' OR external_customer_id = {customer:String})
  AND timestamp >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
  AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
  AND if({feature:String} = '',
      verdict NOT IN ('duplicate', 'marker', 'dead_letter')
      AND at - toUnixTimestamp64Milli(ingested_at) <= 86400000,
      verdict = 'counted' AND feature_id = {feature:String})
  AND (event_id, block_epoch, block_offset, block_index) NOT IN
  (
      SELECT event_id, superseded_epoch, toUInt64(superseded_offset), superseded_index
      FROM events
      WHERE {feature:String} = ''
        AND account = {account:String} AND event_name = {event_name:String} AND superseded_offset >= 0
        AND ({customer:String} = '' OR external_customer_id = {customer:String})
  )
GROUP BY piece_start, bucket_start, properties_text
