-- events_found: an account's events by what people ask for, each with its place in a list (`key`). No markers, dead
-- letters or superseded rows. An empty text, or an empty array, asks for anything.
-- Key    By name (or not), then time, then the position in the producer's log: it stays when an event is sent again.
--        `rank` is its beginning, which is quick to read.
-- Rough  `needles`: properties without one of each array's texts are left out unless they hold an escape; what
--        remains is to be looked at one by one.
-- Unbilled  Whether nothing bills a counted event the catalog alone knows: `unbilled` leaves all of them in.
-- Reads  Only unmatched rows can be superseded: the others are read without what tells.
WITH found AS
(
    SELECT
        event_id,
        event_name,
        external_customer_id,
        timestamp,
        ingested_at,
        source,
        properties,
        verdict,
        detail,
        warnings,
        feature_id,
        log_topic, log_epoch, log_partition, log_offset, log_index,
        block_epoch, block_offset, block_index
    FROM events
    WHERE account = {account:String}
      AND verdict NOT IN ('marker', 'dead_letter')
      AND ({event_name:String} = '' OR event_name = {event_name:String})
      AND ({customer:String} = '' OR external_customer_id = {customer:String})
      AND ({event_id:String} = '' OR event_id = {event_id:String})
      AND (empty({sources:Array(String)}) OR source IN {sources:Array(String)})
      AND (empty({verdicts:Array(String)}) OR verdict IN {verdicts:Array(String)})
      AND (empty({warnings:Array(String)})
          OR hasAny(splitByChar(',', warnings), {warnings:Array(String)})
          OR ({unbilled:Bool} AND verdict = 'counted'))
      AND timestamp >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
      AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
      AND (empty({needles:Array(Array(String))})
          OR arrayAll(texts -> position(properties, '\\') > 0 OR multiSearchAny(properties, texts), {needles:Array(Array(String))}))
),
standing AS
(
    SELECT * FROM found WHERE verdict NOT IN ('unknown_event_name', 'feature_archived')
    UNION ALL
    SELECT * FROM found
    WHERE verdict IN ('unknown_event_name', 'feature_archived')
      AND (event_id, block_epoch, block_offset, block_index) NOT IN
      (
          SELECT event_id, superseded_epoch, toUInt64(superseded_offset), superseded_index
          FROM events
          WHERE account = {account:String} AND superseded_offset >= 0
            AND ({event_name:String} = '' OR event_name = {event_name:String})
            AND ({customer:String} = '' OR external_customer_id = {customer:String})
      )
)
SELECT
    event_id,
    event_name,
    external_customer_id,
    toUnixTimestamp64Milli(timestamp) AS timestamp_ms,
    toUnixTimestamp64Milli(ingested_at) AS ingested_at_ms,
    source,
    properties,
    verdict,
    detail,
    warnings,
    feature_id,
    (if({by_name:Bool}, event_name, ''), timestamp_ms) AS rank,
    (rank.1, timestamp_ms, log_offset, log_index, log_partition, log_epoch, log_topic) AS key
FROM standing
