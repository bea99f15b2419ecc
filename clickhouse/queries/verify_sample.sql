-- verify_sample: some customers at random, of those with states.
SELECT account, external_customer_id
FROM (SELECT DISTINCT account, external_customer_id FROM usage_states WHERE feature_id != '')
ORDER BY rand()
LIMIT {count:UInt32}
