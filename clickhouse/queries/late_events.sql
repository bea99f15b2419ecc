-- late_events: the events behind some marks that adjusted a closed period, in the order of the log, page by page.
-- Why    An adjustment line names the events that it is for.
-- Marks  As in late_usage; `first` is the position (place, offset, index) from which the page begins.
WITH
    {places:Array(UInt32)} AS places,
    {after:Array(Int64)} AS after,
    {upto:Array(Int64)} AS upto,
    toUInt32(block_epoch * 65536 + block_partition) AS place
SELECT
    event_id,
    toUnixTimestamp64Milli(timestamp) AS at,
    toUnixTimestamp64Milli(ingested_at) AS received_at,
    place,
    block_offset,
    block_index
FROM events
WHERE account = {account:String}
  AND event_name = {event_name:String}
  AND external_customer_id = {customer:String}
  AND timestamp >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
  AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
  AND feature_id = {feature:String}
  AND verdict = 'counted'
  AND block_offset >= {least:UInt64}
  AND toInt64(block_offset) > transform(place, places, after, toInt64(-1))
  AND toInt64(block_offset) <= transform(place, places, upto, toInt64(-1))
  AND (place, block_offset, block_index) >= ({first_place:UInt32}, {first_offset:UInt64}, {first_index:UInt32})
ORDER BY place, block_offset, block_index
LIMIT {limit:UInt32}
