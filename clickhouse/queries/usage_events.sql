-- usage_events: the counted events of some features and customers in some hours, cut into pieces, up to some markers.
-- Why    A cut that divides a span of the states: the two sides of that span are told apart by its events.
-- Pieces An event is in the piece of the last of `cuts` (ms) that is not after it; the first is not after `start`.
-- Reads  events of `hours`, by the primary key, or of all of [start, end) (ms) when those are too many (`all_hours`); of
--        blocks up to `upto` in the partitions of `slots` (epoch * 65536 + partition), as the states had them.
-- Answer As usage_states, without markers.
SELECT
    feature_id,
    if({all_customers:Bool}, '', external_customer_id) AS customer,
    roundDown(toUnixTimestamp64Milli(timestamp), {cuts:Array(Int64)}) AS piece,
    group_key,
    count(),
    toString(sum(CAST(value, 'Decimal(76, 18)'))),
    toString(sum(CAST(value, 'Decimal(76, 18)') * toUnixTimestamp64Milli(timestamp))),
    toString(max(value)),
    max((timestamp, ingested_at, log_partition, log_offset, log_index, is_text, value, text))
FROM events
WHERE account = {account:String}
  AND event_name IN {names:Array(String)}
  AND ({all_customers:Bool} OR external_customer_id IN {customers:Array(String)})
  AND timestamp >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
  AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
  AND ({all_hours:Bool} OR toStartOfHour(timestamp) IN {hours:Array(DateTime('UTC'))})
  AND verdict = 'counted'
  AND feature_id IN {features:Array(String)}
  AND block_offset < transform(toUInt32(block_epoch) * 65536 + block_partition, {slots:Array(UInt32)}, {below:Array(UInt64)}, toUInt64(0))
GROUP BY feature_id, customer, piece, group_key
