-- verify_keys: a condition, which states are those of some keys.
(account, feature_id, external_customer_id, toUnixTimestamp(span), group_key) IN arrayZip(
    {key_accounts:Array(String)}, {features:Array(String)}, {key_customers:Array(String)}, {spans:Array(UInt32)},
    {groups:Array(String)})
