-- sweep_marks: how far the log is counted: the last block of each block partition that is stored with its states,
-- its time (ms), and the source positions that its partition covers.
-- Why    Blocks are stored in the order of their offsets, so what is stored later stands behind these marks.
SELECT block_epoch, block_partition, block_offset, toUnixTimestamp64Milli(block_time) AS block_time_ms, properties AS covered
FROM events
WHERE account = '' AND event_name = '' AND verdict = 'marker'
  AND block_offset IN (SELECT max(upto) FROM usage_states WHERE account = '' AND feature_id = '' GROUP BY block_epoch, block_partition)
  AND (block_epoch, block_partition, block_offset) IN
  (
      SELECT block_epoch, block_partition, max(upto)
      FROM usage_states
      WHERE account = '' AND feature_id = ''
      GROUP BY block_epoch, block_partition
  )
