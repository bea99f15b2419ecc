-- markers_at: the markers of some blocks, with what their partitions cover and the balance until there, in their order.
SELECT block_epoch, block_partition, block_offset, properties AS covered, detail AS balance
FROM events
WHERE account = '' AND event_name = '' AND verdict = 'marker'
  AND block_offset IN {offsets:Array(UInt64)}
  AND (block_epoch, block_partition, block_offset) IN arrayZip({epochs:Array(UInt16)}, {partitions:Array(UInt16)}, {offsets:Array(UInt64)})
ORDER BY block_epoch, block_partition, block_offset
