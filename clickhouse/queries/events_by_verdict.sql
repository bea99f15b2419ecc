-- events_by_verdict: how many of an account's events and dead letters were received in each window, by verdict.
-- Windows begin at `starts` (ms, ascending, the first at `start`); superseded rows are left out. A dead letter that
-- was replayed is counted as a dead letter and as the event that it became.
-- Reads  Only unmatched rows can be superseded: the others are read without what tells.
WITH found AS
(
    SELECT ingested_at, verdict, event_id, block_epoch, block_offset, block_index
    FROM events
    WHERE account = {account:String} AND verdict != 'marker'
      AND ({event_name:String} = '' OR event_name = {event_name:String})
      AND ({customer:String} = '' OR external_customer_id = {customer:String})
      AND ingested_at >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
      AND ingested_at < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
)
SELECT roundDown(toUnixTimestamp64Milli(ingested_at), {starts:Array(Int64)}) AS window_start, verdict, count() AS events
FROM
(
    SELECT ingested_at, verdict FROM found WHERE verdict NOT IN ('unknown_event_name', 'feature_archived')
    UNION ALL
    SELECT ingested_at, verdict FROM found
    WHERE verdict IN ('unknown_event_name', 'feature_archived')
      AND (event_id, block_epoch, block_offset, block_index) NOT IN
      (
          SELECT event_id, superseded_epoch, toUInt64(superseded_offset), superseded_index
          FROM events
          WHERE account = {account:String} AND superseded_offset >= 0
            AND ({event_name:String} = '' OR event_name = {event_name:String})
      )
)
GROUP BY window_start, verdict
