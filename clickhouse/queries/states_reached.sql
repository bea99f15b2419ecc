-- states_reached: up to which offset of each block partition the states reach.
SELECT block_epoch, block_partition, max(upto)
FROM usage_states
WHERE account = '' AND feature_id = ''
GROUP BY block_epoch, block_partition
