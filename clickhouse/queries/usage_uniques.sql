-- usage_uniques: the numbers of distinct values of some features and customers in ranges that may overlap.
-- Why    Distinct values don't add up: whole spans (states) and divided ones (events) are merged here, range by range.
-- Layers Ranges of one layer don't overlap. In a layer a time t (ms) is at `layer` + t, in the piece of the last of `cuts`
--        that is not after it. From `rising` on, a piece takes in all earlier ones of its layer.
-- Reads  states of spans in no hour of `hours`, and events of these, up to the markers, as in usage_events; events alone
--        when `all_hours`.
-- Answer A row for each feature, customer ('' when `all_customers` are taken together) and piece with events.
SELECT
    feature_id,
    customer,
    piece,
    uniqExactMerge(own) OVER (PARTITION BY feature_id, customer, if(piece >= {rising:Int64}, 0, piece) ORDER BY piece)
FROM
(
    SELECT feature_id, customer, piece, uniqExactMergeState(own) AS own
    FROM
    (
        SELECT
            feature_id,
            if({all_customers:Bool}, '', external_customer_id) AS customer,
            roundDown(toInt64(toUnixTimestamp(span)) * 1000 + arrayJoin({layers:Array(Int64)}), {cuts:Array(Int64)}) AS piece,
            uniqExactMergeState(uniques) AS own
        FROM usage_states
        WHERE account = {account:String}
          AND feature_id IN {features:Array(String)}
          AND ({all_customers:Bool} OR external_customer_id IN {customers:Array(String)})
          AND NOT {all_hours:Bool}
          AND span >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
          AND span < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
          AND span NOT IN {hours:Array(DateTime('UTC'))}
        GROUP BY feature_id, customer, piece
        UNION ALL
        SELECT
            feature_id,
            if({all_customers:Bool}, '', external_customer_id) AS customer,
            roundDown(toUnixTimestamp64Milli(timestamp) + arrayJoin({layers:Array(Int64)}), {cuts:Array(Int64)}) AS piece,
            uniqExactState(toNullable(text)) AS own
        FROM events
        WHERE account = {account:String}
          AND event_name IN {names:Array(String)}
          AND ({all_customers:Bool} OR external_customer_id IN {customers:Array(String)})
          AND timestamp >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
          AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
          AND ({all_hours:Bool} OR toStartOfHour(timestamp) IN {hours:Array(DateTime('UTC'))})
          AND verdict = 'counted'
          AND feature_id IN {features:Array(String)}
          AND block_offset < transform(toUInt32(block_epoch) * 65536 + block_partition, {slots:Array(UInt32)}, {below:Array(UInt64)}, toUInt64(0))
        GROUP BY feature_id, customer, piece
    )
    GROUP BY feature_id, customer, piece
)
