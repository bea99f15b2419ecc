-- late_counts: how many events behind some marks made each adjustment of one invoice.
-- Marks  As in late_usage; each adjustment has offsets of its own in `afters`, in the order of `places`.
-- Answer The number of the adjustment, from 0, and its events; one without events has no row.
WITH
    {places:Array(UInt32)} AS places,
    {upto:Array(Int64)} AS upto,
    {features:Array(String)} AS features,
    {starts:Array(Int64)} AS starts,
    {ends:Array(Int64)} AS ends,
    {afters:Array(Array(Int64))} AS afters
SELECT adjustment - 1, count()
FROM
(
    SELECT
        feature_id,
        toUnixTimestamp64Milli(timestamp) AS at,
        toInt64(block_offset) AS block,
        indexOf(places, toUInt32(block_epoch * 65536 + block_partition)) AS place
    FROM events
    WHERE account = {account:String}
      AND event_name IN {event_names:Array(String)}
      AND external_customer_id = {customer:String}
      AND timestamp >= fromUnixTimestamp64Milli(arrayMin(starts), 'UTC')
      AND timestamp < fromUnixTimestamp64Milli(arrayMax(ends), 'UTC')
      AND has(features, feature_id)
      AND verdict = 'counted'
      AND block_offset >= {least:UInt64}
      AND place > 0
      AND block <= upto[place]
)
ARRAY JOIN arrayEnumerate(features) AS adjustment
WHERE feature_id = features[adjustment]
  AND at >= starts[adjustment]
  AND at < ends[adjustment]
  AND block > afters[adjustment][place]
GROUP BY adjustment
