-- How far a block partition is counted: its last marker. One row, or none before the first block.
SELECT block_offset, properties AS covered, toUnixTimestamp64Milli(block_time) AS block_time_ms, detail AS balance
FROM events
WHERE account = '' AND event_name = '' AND verdict = 'marker'
  AND block_epoch = {epoch:UInt16} AND block_partition = {partition:UInt16}
ORDER BY block_offset DESC
LIMIT 1
