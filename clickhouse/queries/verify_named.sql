-- verify_named: a condition, the customers named. By the first two lines the engine knows which granules to skip.
(account IN {accounts:Array(String)}
    AND external_customer_id IN {customers:Array(String)}
    AND (account, external_customer_id) IN arrayZip({accounts:Array(String)}, {customers:Array(String)}))
