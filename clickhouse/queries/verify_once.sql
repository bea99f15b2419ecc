-- verify_once: events that count more than once within the horizon of deduplication.
-- Reads  ids whose hash falls into `shard` of `shards`; of those that count twice, all that claimed the id or was sent again.
-- Exact  A row that was sent again is as old as the row that was stored first for its place in the log.
-- Answer A row for each such id, `rows_max` at most: how often it counts, and the customers whose usage it is.
SELECT account, event_id, sum(counted) AS times, groupUniqArrayArray(customers_here) AS customers
FROM
(
    SELECT
        account, event_id,
        countIf(verdict = 'counted') AS counted,
        min(toUnixTimestamp64Milli(block_time)) AS since,
        groupUniqArrayIf(external_customer_id, verdict = 'counted') AS customers_here
    FROM events
    WHERE verdict NOT IN ('duplicate', 'dead_letter', 'marker') AND (account, event_id) IN
    (
        SELECT account, event_id
        FROM events
        WHERE verdict = 'counted' AND cityHash64(event_id) % {shards:UInt32} = {shard:UInt32}
        GROUP BY account, event_id
        HAVING count() > 1
            AND arrayMin(arraySlice(arrayDifference(arraySort(groupArray(toUnixTimestamp64Milli(block_time)))), 2)) < {horizon_ms:Int64}
    )
    GROUP BY account, event_id, log_topic, log_epoch, log_partition, log_offset, log_index
    HAVING counted > 0
)
GROUP BY account, event_id
HAVING times > count() OR arrayMin(arraySlice(arrayDifference(arraySort(groupArray(since))), 2)) < {horizon_ms:Int64}
ORDER BY account, event_id
LIMIT {rows_max:UInt32}
