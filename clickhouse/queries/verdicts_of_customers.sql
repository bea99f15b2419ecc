-- How many events of the customers whose ids end with a text have which verdict and warnings:
-- of some event names, or (when none is given) of all.
SELECT verdict, arrayStringConcat(warnings, ',') AS warnings, count() AS events
FROM metered_events
WHERE account = {account:String} AND endsWith(external_customer_id, {suffix:String})
  AND (empty({names:Array(String)}) OR event_name IN {names:Array(String)})
GROUP BY verdict, warnings
