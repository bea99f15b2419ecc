-- usage_states: what the states hold of some features and customers, cut into pieces, and up to where they reach.
-- Why    One scan of one table is one cut: states and markers (rows with empty keys) lie in the same parts.
-- Pieces A span is in the piece of the last of `cuts` (s) that is not after it. A feature in `fine` has small buckets:
--        the greatest value of each of a piece's spans comes along.
-- Reads  spans of [start, end) (s), by the primary key; `customers` holds '' for the markers.
-- Answer A row for each feature, customer ('' when `all_customers` are taken together), piece and group; and for each
--        block partition its marker, with an empty feature. Decimals as texts. The latest event and the small buckets come
--        only to who wants them: they are half the time of a short read.
SELECT
    feature_id,
    if({all_customers:Bool}, '', external_customer_id) AS customer,
    roundDown(toUnixTimestamp(span), {cuts:Array(UInt32)}) AS piece,
    group_key,
    block_epoch,
    block_partition,
    sum(event_count),
    toString(sum(value_sum)),
    toString(sum(value_time_sum)),
    toString(max(value_max)),
    max(latest),  -- only: latest
    mapApply((start, value) -> (start, toString(value)), maxMapIf(map(toUnixTimestamp(span), value_max), feature_id IN {fine:Array(String)})),  -- only: fine
    max(upto)
FROM usage_states
WHERE account IN ('', {account:String})
  AND feature_id IN {features:Array(String)}
  AND ({all_customers:Bool} OR external_customer_id IN {customers:Array(String)})
  AND (feature_id = '' OR span >= {start:UInt32} AND span < {end:UInt32})
GROUP BY feature_id, customer, piece, group_key, block_epoch, block_partition
