-- verify_rows: the counted rows of some customers, each block partition up to a cut.
-- Reads  customers as verify_states does; `slots` (epoch * 65536 + partition) are cut before the blocks `befores`.
SELECT * FROM events
WHERE verdict = 'counted'
    AND block_offset < mapFromArrays({slots:Array(UInt32)}, {befores:Array(UInt64)})[toUInt32(block_epoch * 65536 + block_partition)]
    AND $customers
