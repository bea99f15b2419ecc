-- dead_letters_naming: an account's dead letters whose bytes hold one of some texts, newest first.
SELECT
    concat(log_topic, '-', toString(log_epoch), '-', toString(log_partition), '-', toString(log_offset), '-', toString(log_index)) AS id,
    splitByChar(':', detail)[1] AS code,
    detail,
    toUnixTimestamp64Milli(ingested_at) AS ingested_at_ms
FROM events
WHERE account = {account:String} AND event_name = '' AND verdict = 'dead_letter'
  AND multiSearchAny(properties, {texts:Array(String)})
ORDER BY ingested_at DESC
LIMIT 10
