-- late_usage: which features of a customer have counted events behind some marks, and from when on.
-- Why    An invoice counted up to its marks; what lies behind them with an earlier time is late, and adjusts it.
-- Marks  `places` (epoch * 65536 + partition) with the last block counted (`after`) and the last that may be looked at (`upto`).
-- Reads  the customer's events of those names, in months from the marks' own block time on: nothing late is older than that,
--        as the log appends in order. A place without a mark at the time (after -1) has no such bound. `least` of those offsets
--        lets whole granules pass by: what was stored together in time has offsets together.
WITH
    {places:Array(UInt32)} AS places,
    {after:Array(Int64)} AS after,
    {upto:Array(Int64)} AS upto,
    (
        SELECT if(count() = length(places), min(block_time), fromUnixTimestamp64Milli(toInt64(0), 'UTC'))
        FROM events
        WHERE account = '' AND verdict = 'marker'
          AND (toUInt32(block_epoch * 65536 + block_partition), toInt64(block_offset)) IN (SELECT arrayJoin(arrayZip(places, after)))
    ) AS since
SELECT
    feature_id,
    toUnixTimestamp64Milli(min(timestamp)) AS earliest
FROM events
WHERE account = {account:String}
  AND event_name IN {event_names:Array(String)}
  AND external_customer_id = {customer:String}
  AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
  AND feature_id IN {features:Array(String)}
  AND verdict = 'counted'
  AND block_offset >= {least:UInt64}
  AND block_time >= since
  AND toInt64(block_offset) > transform(toUInt32(block_epoch * 65536 + block_partition), places, after, toInt64(-1))
  AND toInt64(block_offset) <= transform(toUInt32(block_epoch * 65536 + block_partition), places, upto, toInt64(-1))
GROUP BY feature_id
ORDER BY feature_id
