-- Where an account's dead letters of a topic since a moment stand, and why they are there.
SELECT log_partition, log_offset, log_index, trimRight(reason, ':') AS reason
FROM dead_letters
WHERE account = {account:String} AND log_topic = {topic:String}
  AND ingested_at >= fromUnixTimestamp64Milli({since:Int64})
