-- verify_states: where the states differ from what their view's SELECT makes of the stored rows.
-- Before `WITH fresh AS (<that SELECT, over the rows of the same customers, each block partition up to a cut>)`.
-- Reads  the customers of a condition, verify_shard or verify_named, that takes the place of the dollar name.
-- Exact  Distinct values are compared as sets: two sets that are as large as their union are one.
-- Answer A row for each key that differs, and for each block partition its marker, with an empty feature. `stored` is
--        (events, sum, sum by time, greatest, latest) as the states have it, `made` as the rows make it.
SELECT
    account, feature_id, external_customer_id, span, group_key, block_epoch, block_partition,
    max(upto) AS upto,
    anyIf(state, is_stored) AS stored,
    anyIf(state, NOT is_stored) AS made,
    uniqExactMergeIf(uniques, is_stored) AS stored_uniques,
    uniqExactMergeIf(uniques, NOT is_stored) AS made_uniques,
    stored = made AND stored_uniques = made_uniques AS alike
FROM
(
    SELECT
        true AS is_stored, account, feature_id, external_customer_id, span, group_key, block_epoch, block_partition,
        max(usage_states.upto) AS upto,
        (sum(event_count), toString(sum(value_sum)), toString(sum(value_time_sum)), toString(max(value_max)), toString(max(latest))) AS state,
        uniqExactMergeState(usage_states.uniques) AS uniques
    FROM usage_states
    WHERE feature_id = '' OR $customers
    GROUP BY account, feature_id, external_customer_id, span, group_key, block_epoch, block_partition
    UNION ALL
    SELECT
        false, account, feature_id, external_customer_id, span, group_key, block_epoch, block_partition,
        toUInt64(0),
        (event_count, toString(value_sum), toString(value_time_sum), toString(value_max), toString(latest)),
        fresh.uniques
    FROM fresh
)
GROUP BY account, feature_id, external_customer_id, span, group_key, block_epoch, block_partition
HAVING feature_id = '' OR NOT alike OR uniqExactMerge(uniques) != stored_uniques
ORDER BY account, feature_id, external_customer_id, span, group_key, block_epoch, block_partition
LIMIT {rows_max:UInt32}
