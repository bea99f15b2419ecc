-- usage_rows: the events of a name by what their properties say, cut into pieces, for usage that no state holds.
-- Why    Ad hoc aggregations, filters and groups read the properties. Exact numbers need the JSON text: the engine's own
--        JSON functions turn them into floats. So events with equal values come as one row, and Python reads the text.
-- Pieces As in usage_events, and never longer than `grain` (ms; 0: any length).
-- Reads  events: the counted ones of `feature`; without one, all of the name that are no duplicates, that no re-sent
--        event supersedes, and whose time is at most 24 h after their receipt. Of `sources` only, if there are any.
-- Answer A row for each piece, source (empty unless `by_source`) and properties, in no order. Of the properties only those of
--        `keys` (with their quotes), which can be cut out of a text that is flat and has no escapes; others come whole.
WITH
    toUnixTimestamp64Milli(timestamp) AS at,
    {keys:Array(String)} AS keys,
    position(properties, '\\') = 0 AND position(properties, '[') = 0 AND countSubstrings(properties, '{') = 1
        AND arrayAll(key -> countSubstrings(properties, key) <= 1, keys) AS is_flat,
    arrayMap(key -> (key, position(properties, key)), keys) AS places,
    arrayMap(place -> (place.1, extract(substring(properties, place.2 + length(place.1)), '^\\s*:\\s*("[^"]*"|[^\\s,}"]+)')),
        arrayFilter(place -> place.2 > 0, places)) AS found,
    arrayMap(pair -> concat(pair.1, ':', pair.2), arrayFilter(pair -> pair.2 != '', found)) AS pairs
SELECT
    greatest(roundDown(at, {cuts:Array(Int64)}), if({grain:Int64} = 0, 0, at - at % {grain:Int64})) AS piece,
    if({by_source:Bool}, source, '') AS source_text,
    multiIf({whole_properties:Bool}, properties, empty(keys), '', is_flat, concat('{', arrayStringConcat(pairs, ','), '}'), properties) AS properties_text,
    count() AS event_count,
    sum(toInt128(at)) AS time_sum,
    max((at, toUnixTimestamp64Milli(ingested_at), log_partition, log_offset, log_index)) AS last
FROM events
WHERE account = {account:String}
  AND event_name = {event_name:String}
  AND ({customer:String} = '' OR external_customer_id = {customer:String})
  AND timestamp >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
  AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
  AND (empty({sources:Array(String)}) OR source IN {sources:Array(String)})
  AND if({feature:String} = '',
      verdict NOT IN ('duplicate', 'marker', 'dead_letter')
      AND at - toUnixTimestamp64Milli(ingested_at) <= 86400000,
      verdict = 'counted' AND feature_id = {feature:String})
  AND (event_id, block_epoch, block_offset, block_index) NOT IN
  (
      SELECT event_id, superseded_epoch, toUInt64(superseded_offset), superseded_index
      FROM events
      WHERE {feature:String} = ''
        AND account = {account:String} AND event_name = {event_name:String} AND superseded_offset >= 0
        AND ({customer:String} = '' OR external_customer_id = {customer:String})
  )
GROUP BY piece, source_text, properties_text
