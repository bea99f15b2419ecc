-- verify_count: how many rows are stored of a block partition up to a block, markers included.
SELECT count() FROM events
WHERE block_epoch = {epoch:UInt16} AND block_partition = {partition:UInt16} AND block_offset <= {upto:UInt64}
