-- verify_shard: a condition, customers whose hash falls into `shard` of `shards`.
cityHash64(external_customer_id) % {shards:UInt32} = {shard:UInt32}
