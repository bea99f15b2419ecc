-- sweep_newer: names with unmatched events behind the marks of a sweep, and the time (ms) of the oldest block with one.
-- Marks  `slots` (block epoch * 65536 + block partition) and the offsets `afters`; `lowest` is the least of them.
-- Reads  parts with a block since `since` (ms), and of them the granules with an offset above `lowest`.
SELECT account, event_name, toUnixTimestamp64Milli(min(block_time)) AS since
FROM events
WHERE verdict IN ('unknown_event_name', 'feature_archived')
  AND block_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
  AND block_offset > {lowest:Int64}
  AND toInt64(block_offset) > transform(toUInt32(block_epoch * 65536 + block_partition), {slots:Array(UInt32)}, {afters:Array(Int64)}, toInt64(-1))
GROUP BY account, event_name
