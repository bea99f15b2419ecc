-- Where a page of so many claims ends: the offset of the block that fills it. No row when fewer are left.
SELECT block_offset
FROM events
WHERE block_epoch = {epoch:UInt16} AND block_partition = {partition:UInt16}
  AND block_offset > {after:Int64} AND block_offset <= {upto:Int64}
  AND verdict NOT IN ('duplicate', 'dead_letter', 'marker')
  AND block_time >= fromUnixTimestamp64Milli({since:Int64})
ORDER BY block_offset
LIMIT 1 OFFSET {rows:UInt64}
