-- last_received: when and over which topic an account's newest event of the last day was received; none: no row.
SELECT toUnixTimestamp64Milli(ingested_at) AS ingested_at_ms, log_topic
FROM events
WHERE account = {account:String} AND verdict != 'marker'
  AND block_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
ORDER BY ingested_at DESC
LIMIT 1
