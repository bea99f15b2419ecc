-- usage: the state of a feature's counted events in each piece of a range, for all but bucketed MAX.
-- Why    One read for any range and any windows: whole spans from usage_states, divided ones from events.
-- Pieces `firsts` and `steps` are runs of equal steps (ms): t is in the piece first + (t - first) div step * step.
-- Reads  states of spans that lie in one piece of [start, end) (ms), events of the others; `cut_hours` are the
--        hours they are in, to find them by the primary key, unless they are too many (`all_hours`).
-- Answer A row for each piece with events, in order. With `cumulative`, all but value_sum and time_sum take in what lies
--        before the piece, and before_sum is what value_sum leaves out.
WITH
    {firsts:Array(Int64)} AS firsts,
    {steps:Array(Int64)} AS steps,
    {grain:Int64} * 1000 AS grain_ms
SELECT
    piece_start,
    sum(own_count) OVER earlier AS event_count,
    toString(own_sum) AS value_sum,
    toString(own_time_sum) AS time_sum,
    toString(sum(own_sum) OVER earlier - own_sum) AS before_sum,
    toString(max(own_max) OVER earlier) AS value_max,
    max(own_latest) OVER earlier AS last,
    last.6 AS latest_is_text,
    toString(last.7) AS latest_value,
    last.8 AS latest_text,
    uniqExactMerge(own_uniques) OVER earlier AS unique_count
FROM
(
    SELECT
        piece_start,
        sum(event_count) AS own_count,
        sum(value_sum) AS own_sum,
        sum(value_time_sum) AS own_time_sum,
        max(value_max) AS own_max,
        max(latest) AS own_latest,
        uniqExactMergeState(uniques) AS own_uniques
    FROM
    (
        SELECT
            toInt64(toUnixTimestamp(span)) * 1000 AS at,
            roundDown(at, firsts) AS first,
            transform(first, firsts, steps, toInt64(1)) AS step,
            first + intDiv(at - first, step) * step AS piece_start,
            event_count,
            value_sum,
            value_time_sum,
            value_max,
            latest,
            uniques
        FROM usage_states
        WHERE account = {account:String}
          AND feature_id = {feature:String}
          AND ({customer:String} = '' OR external_customer_id = {customer:String})
          AND toUnixTimestamp(span) >= intDiv({start:Int64} + 999, 1000)
          AND toUnixTimestamp(span) < intDiv({end:Int64}, 1000)
          AND at + grain_ms <= piece_start + step
        UNION ALL
        SELECT
            any(toUnixTimestamp64Milli(timestamp) AS at),
            any(roundDown(at, firsts) AS first),
            any(transform(first, firsts, steps, toInt64(1)) AS step),
            first + intDiv(at - first, step) * step AS piece_start,
            count(),
            sum(CAST(value, 'Decimal(76, 18)')),
            sum(CAST(value, 'Decimal(76, 18)') * at),
            max(value),
            max((timestamp, ingested_at, log_partition, log_offset, log_index, is_text, value, text)),
            uniqExactState(if(aggregation = 'COUNT_UNIQUE', text, NULL))
        FROM events
        WHERE account = {account:String}
          AND event_name = {event_name:String}
          AND ({customer:String} = '' OR external_customer_id = {customer:String})
          AND timestamp >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
          AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
          AND ({all_hours:Bool} OR toStartOfHour(timestamp) IN {cut_hours:Array(DateTime('UTC'))})
          AND verdict = 'counted'
          AND feature_id = {feature:String}
          AND NOT (at - at % grain_ms >= piece_start AND at - at % grain_ms + grain_ms <= piece_start + step)
        GROUP BY piece_start
    )
    GROUP BY piece_start
)
WINDOW earlier AS (PARTITION BY if({cumulative:Bool}, 0, piece_start) ORDER BY piece_start)
ORDER BY piece_start
