-- sweep_bound: the key (customer, timestamp in ms) of the last of the next `rows` unmatched events of a name, in the
-- order of the primary key. None when fewer are left.
SELECT external_customer_id, toUnixTimestamp64Milli(timestamp) AS timestamp_ms
FROM events
WHERE account = {account:String} AND event_name = {event_name:String}
  AND verdict IN ('unknown_event_name', 'feature_archived')
  AND block_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
  AND (external_customer_id > {after_customer:String}
      OR (external_customer_id = {after_customer:String} AND timestamp > fromUnixTimestamp64Milli({after_time:Int64}, 'UTC')))
ORDER BY external_customer_id, events.timestamp
LIMIT 1 OFFSET {rows:UInt64}
