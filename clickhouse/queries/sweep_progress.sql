-- sweep_progress: how many events of a name still wait to be sent again, and how many were.
-- Exact  Only unmatched rows are superseded, each by one row of the same name.
SELECT
    toInt64(countIf(verdict IN ('unknown_event_name', 'feature_archived'))) - toInt64(countIf(superseded_offset >= 0)) AS pending,
    countIf(superseded_offset >= 0) AS resent
FROM events
WHERE account = {account:String} AND event_name = {event_name:String}
