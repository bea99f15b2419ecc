-- verify_blocks: blocks of a partition whose rows are not as many as their markers' balance says.
-- Reads  the partition up to the block `upto`.
-- Answer A row for each, `rows_max` at most: its rows, and those that it should have.
SELECT block_offset, rows, due
FROM
(
    SELECT
        block_offset,
        count() AS rows,
        JSONExtractUInt(anyIf(detail, verdict = 'marker'), 'rows') AS total,
        toInt64(total) - lagInFrame(toInt64(total), 1, 0) OVER (ORDER BY block_offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS due
    FROM events
    WHERE block_epoch = {epoch:UInt16} AND block_partition = {partition:UInt16} AND block_offset <= {upto:UInt64}
    GROUP BY block_offset
)
WHERE rows != due
ORDER BY block_offset
LIMIT {rows_max:UInt32}
