-- verify_rows: the counted rows of some customers, each block partition up to a cut.
-- Reads  customers as verify_states does; `slots` (epoch * 65536 + partition) are cut before the blocks `befores`.
SELECT * FROM events
WHERE verdict = 'counted'
    AND block_offset < mapFromArrays({slots:Array(UInt32)}, {befores:Array(UInt64)})[toUInt32(block_epoch * 65536 + block_partition)]
    AND if({shards:UInt32} > 0,
           cityHash64(external_customer_id) % greatest({shards:UInt32}, 1) = {shard:UInt32},
           (account, external_customer_id) IN arrayZip({accounts:Array(String)}, {customers:Array(String)}))
