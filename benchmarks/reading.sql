-- Synthetic events of August 2025: a tenth are of customer c0 and feature 0, the rest of 200 customers and 20 features.
-- The first `events` make up the month, what comes later is of its last day. Every 2000 are a block, in turn of 4 partitions; the last rows are the partitions' markers.
INSERT INTO events
(
    account, event_name, external_customer_id, timestamp, event_id, ingested_at, source, properties, verdict, feature_id,
    aggregation, value, text, is_text, group_key, grain, log_offset, block_partition, block_offset, block_index, block_time
)
SELECT
    'bench', concat('name.', toString(feature)), customer, at, concat('evt_', toString(n)), at, ['api', 'worker', 'cron'][1 + n % 3],
    concat('{"n":', toString(n % 500), ',"region":"r', toString(n % 4), '","request_id":"req_', toString(n), '"}'),
    'counted', concat('feat_', toString(feature)), aggregation, if(aggregation IN ('COUNT', 'COUNT_UNIQUE'), 0, toDecimal128(n % 500, 18)),
    if(aggregation = 'COUNT_UNIQUE', toString(n % 1000), ''), false, '', if(feature % 10 = 9, 60, 3600), n, n % 4, intDiv(n, 2000), n % 2000, at
FROM
(
    SELECT
        {first:UInt64} + number AS n,
        sipHash64(n) AS hash,
        if(hash % 10 = 0, 0, intDiv(hash, 10) % 20) AS feature,
        if(hash % 10 = 0, 'c0', concat('c', toString(1 + intDiv(hash, 200) % 200))) AS customer,
        {aggregations:Array(String)}[1 + feature % 10] AS aggregation,
        toDateTime64('2025-08-01 00:00:00', 3, 'UTC') + toIntervalMillisecond(if(
            n < {events:UInt64}, intDiv(n * 2678400, intDiv({events:UInt64}, 1000)), 2660000000 + n - {events:UInt64})) AS at
    FROM numbers({count:UInt64})
)
UNION ALL
SELECT
    '', '', '', toDateTime64(0, 3, 'UTC'), '', toDateTime64(0, 3, 'UTC'), '', '', 'marker', '',
    '', 0, '', false, '', 3600, 0, number, intDiv({first:UInt64} + {count:UInt64}, 2000), 4294967295, toDateTime64('2025-08-01 00:00:00', 3, 'UTC')
FROM numbers(4)
