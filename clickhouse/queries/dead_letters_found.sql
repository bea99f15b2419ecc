-- dead_letters_found: an account's dead letters by what people ask for. `id` is the position as one text; `key` sorts.
-- Bytes  `beginning` is cut after `bytes_max`; the rest is read one by one.
SELECT
    concat(log_topic, '-', toString(log_epoch), '-', toString(log_partition), '-', toString(log_offset), '-', toString(log_index)) AS id,
    splitByChar(':', detail)[1] AS code,
    detail,
    toUnixTimestamp64Milli(ingested_at) AS ingested_at_ms,
    log_topic, log_epoch, log_partition, log_offset, log_index,
    length(properties) AS size,
    base64Encode(substring(properties, 1, {bytes_max:UInt64})) AS beginning,
    (ingested_at_ms, log_offset, log_index, log_partition, log_epoch, log_topic) AS key
FROM events
WHERE account = {account:String} AND event_name = '' AND verdict = 'dead_letter'
  AND (empty({ids:Array(String)}) OR id IN {ids:Array(String)})
  AND ({code:String} = '' OR code = {code:String})
  AND ({topic:String} = '' OR log_topic = {topic:String})
  AND ingested_at >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
  AND ingested_at < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
