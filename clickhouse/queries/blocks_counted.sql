-- blocks_counted: of each block partition of an epoch, the last block that is stored with its states.
SELECT block_partition, max(upto) AS block_offset
FROM usage_states
WHERE account = '' AND feature_id = '' AND block_epoch = {epoch:UInt16}
GROUP BY block_partition
