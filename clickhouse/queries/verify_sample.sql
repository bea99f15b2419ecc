-- verify_sample: some customers at random, of those with states and those with events of the last day that was counted.
SELECT account, external_customer_id
FROM
(
    SELECT account, external_customer_id FROM usage_states WHERE feature_id != ''
    UNION DISTINCT
    SELECT account, external_customer_id FROM events WHERE verdict = 'counted' AND block_time > (SELECT max(block_time) FROM ledger) - INTERVAL 1 DAY
)
ORDER BY rand()
LIMIT {count:UInt32}
