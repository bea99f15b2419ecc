-- verify_holes: between which stored blocks of a partition others are missing.
SELECT before, block_offset
FROM
(
    SELECT
        block_offset,
        lagInFrame(block_offset, 1, block_offset) OVER (ORDER BY block_offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before
    FROM (SELECT DISTINCT block_offset FROM ledger WHERE block_epoch = {epoch:UInt16} AND block_partition = {partition:UInt16})
)
WHERE block_offset > before + 1
ORDER BY block_offset
LIMIT {rows_max:UInt32}
