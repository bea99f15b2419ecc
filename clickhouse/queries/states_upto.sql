-- Up to which offset of a block partition the states reach: the marker that the view keeps in them.
SELECT if(count() = 0, -1, toInt64(max(upto)))
FROM usage_states
WHERE account = '' AND feature_id = ''
  AND block_epoch = {epoch:UInt16} AND block_partition = {partition:UInt16}
