-- verify_keys: a condition, which states are those of some keys; none once a partition that is held has another owner.
-- Reads  `owners` with its database before it: a mutation has none of its own. A hold that is renewed keeps its last 20 bits.
arrayAll((slot, owner) -> bitAnd(joinGet({owners:String}, 'owner', slot), {random:UInt64}) = owner, {held_slots:Array(UInt32)}, {holds:Array(UInt64)})
AND (account, feature_id, external_customer_id, toUnixTimestamp(span), group_key) IN arrayZip(
    {key_accounts:Array(String)}, {features:Array(String)}, {key_customers:Array(String)}, {spans:Array(UInt32)},
    {groups:Array(String)})
