-- verify_ledger: each block partition's ledger, as a whole.
-- Answer Its first and last block, how many there are, and how many markers say so.
SELECT
    block_epoch,
    block_partition,
    min(ledger.block_offset) AS first,
    max(ledger.block_offset) AS last,
    uniqExact(ledger.block_offset) AS blocks,
    count() AS markers
FROM ledger
GROUP BY block_epoch, block_partition
ORDER BY block_epoch, block_partition
