-- verify_once: events that count more than once within the horizon of deduplication.
-- Reads  ids whose hash falls into `shard` of `shards`.
-- Answer A row for each such id, `rows_max` at most: how often it counts, and the customers whose usage it is.
SELECT account, event_id, count() AS times, groupUniqArray(external_customer_id) AS customers
FROM events
WHERE verdict = 'counted' AND cityHash64(event_id) % {shards:UInt32} = {shard:UInt32}
GROUP BY account, event_id
HAVING times > 1
    AND arrayMin(arraySlice(arrayDifference(arraySort(groupArray(toUnixTimestamp64Milli(block_time)))), 2)) < {horizon_ms:Int64}
ORDER BY account, event_id
LIMIT {rows_max:UInt32}
