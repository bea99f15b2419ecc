-- rows_of_partition: how many rows are stored of a block partition, markers included.
SELECT count() FROM events WHERE block_epoch = {epoch:UInt16} AND block_partition = {partition:UInt16}
