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
    {grain:Int64} * 1000 AS grain_ms
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
            toInt64(toUnixTimestamp(span)) * 1000 AS at,
            roundDown(at, firsts) AS first,
            transform(first, firsts, steps, toInt64(1)) AS step,
            first + intDiv(at - first, step) * step AS piece_start,
            roundDown(at, bucket_firsts) AS bucket_first,
            transform(bucket_first, bucket_firsts, bucket_steps, toInt64(1)) AS bucket_step,
            bucket_first + intDiv(at - bucket_first, bucket_step) * bucket_step AS bucket_start,
            group_key,
            event_count,
            value_max
        FROM usage_states
        WHERE account = {account:String}
          AND feature_id = {feature:String}
          AND ({customer:String} = '' OR external_customer_id = {customer:String})
          AND toUnixTimestamp(span) >= intDiv({start:Int64} + 999, 1000)
          AND toUnixTimestamp(span) < intDiv({end:Int64}, 1000)
          AND at + grain_ms <= least(piece_start + step, bucket_start + bucket_step)
        UNION ALL
        SELECT
            any(toUnixTimestamp64Milli(timestamp) AS at),
            any(roundDown(at, firsts) AS first),
            any(transform(first, firsts, steps, toInt64(1)) AS step),
            first + intDiv(at - first, step) * step AS piece_start,
            any(roundDown(at, bucket_firsts) AS bucket_first),
            any(transform(bucket_first, bucket_firsts, bucket_steps, toInt64(1)) AS bucket_step),
            bucket_first + intDiv(at - bucket_first, bucket_step) * bucket_step AS bucket_start,
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
          AND NOT (at - at % grain_ms >= greatest(piece_start, bucket_start)
              AND at - at % grain_ms + grain_ms <= least(piece_start + step, bucket_start + bucket_step))
        GROUP BY piece_start, bucket_start, group_key
    )
    GROUP BY piece_start, bucket_start, group_key
)
GROUP BY piece_start
ORDER BY piece_start
