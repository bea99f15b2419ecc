-- usage_bucketed: the sum of the greatest values of a bucketed MAX's buckets (and groups), in each piece of a range.
-- Why    As usage, for the one aggregation that needs two steps: the greatest of each bucket and group, then their sum.
-- Pieces As in usage; buckets are cut by `bucket_firsts` and `bucket_steps`, and again by the pieces.
-- Reads  states of spans that lie in one bucket of one piece, events of the others.
-- Answer A row for each piece with events, in order.
WITH
    {firsts:Array(Int64)} AS firsts,
    {steps:Array(Int64)} AS steps,
    {bucket_firsts:Array(Int64)} AS bucket_firsts,
    {bucket_steps:Array(Int64)} AS bucket_steps,
    (t -> roundDown(t, firsts) + intDiv(t - roundDown(t, firsts), transform(roundDown(t, firsts), firsts, steps, toInt64(1)))
        * transform(roundDown(t, firsts), firsts, steps, toInt64(1))) AS piece,
    (t -> roundDown(t, bucket_firsts) + intDiv(t - roundDown(t, bucket_firsts), transform(roundDown(t, bucket_firsts), bucket_firsts, bucket_steps, toInt64(1)))
        * transform(roundDown(t, bucket_firsts), bucket_firsts, bucket_steps, toInt64(1))) AS bucket,
    ((first_ms, last_ms) -> first_ms >= {start:Int64} AND last_ms < {end:Int64} AND piece(first_ms) = piece(last_ms) AND bucket(first_ms) = bucket(last_ms)) AS is_whole
SELECT
    piece_start,
    sum(event_count) AS event_count,
    toString(sum(CAST(greatest, 'Decimal(76, 18)'))) AS value_sum
FROM
(
    SELECT piece_start, bucket_start, group_key, sum(event_count) AS event_count, max(value_max) AS greatest
    FROM
    (
        SELECT
            piece(toInt64(toUnixTimestamp(span)) * 1000) AS piece_start,
            bucket(toInt64(toUnixTimestamp(span)) * 1000) AS bucket_start,
            group_key,
            event_count,
            value_max
        FROM usage_states
        WHERE account = {account:String}
          AND feature_id = {feature:String}
          AND ({customer:String} = '' OR external_customer_id = {customer:String})
          AND toUnixTimestamp(span) >= intDiv({start:Int64}, 1000)
          AND toUnixTimestamp(span) < intDiv({end:Int64}, 1000)
          AND is_whole(toInt64(toUnixTimestamp(span)) * 1000, toInt64(toUnixTimestamp(span)) * 1000 + {grain:Int64} * 1000 - 1)
        UNION ALL
        SELECT
            piece(toUnixTimestamp64Milli(timestamp)) AS piece_start,
            bucket(toUnixTimestamp64Milli(timestamp)) AS bucket_start,
            group_key,
            count(),
            max(value)
        FROM events
        WHERE account = {account:String}
          AND event_name = {event_name:String}
          AND ({customer:String} = '' OR external_customer_id = {customer:String})
          AND timestamp >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
          AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
          AND ({all_hours:Bool} OR toStartOfHour(timestamp) IN {cut_hours:Array(DateTime('UTC'))})
          AND verdict = 'counted'
          AND feature_id = {feature:String}
          AND NOT is_whole(
              intDiv(toUnixTimestamp64Milli(timestamp), {grain:Int64} * 1000) * {grain:Int64} * 1000,
              intDiv(toUnixTimestamp64Milli(timestamp), {grain:Int64} * 1000) * {grain:Int64} * 1000 + {grain:Int64} * 1000 - 1)
        GROUP BY piece_start, bucket_start, group_key
    )
    GROUP BY piece_start, bucket_start, group_key
)
GROUP BY piece_start
ORDER BY piece_start
