-- verify_ledger: each block partition's ledger, as a whole.
-- Answer Its first and last block, how many there are, and what the last one's marker says: what is covered of the source
--        logs, and the balance of rows until there.
SELECT
    block_epoch,
    block_partition,
    min(ledger.block_offset) AS first,
    max(ledger.block_offset) AS last,
    uniqExact(ledger.block_offset) AS blocks,
    count() AS markers,
    argMax(covered, ledger.block_offset) AS covered,
    argMax(balance, ledger.block_offset) AS balance
FROM (SELECT block_epoch, block_partition, block_offset, properties AS covered, detail AS balance
      FROM events WHERE account = '' AND event_name = '' AND verdict = 'marker') AS ledger
GROUP BY block_epoch, block_partition
ORDER BY block_epoch, block_partition
