-- Inserts of a block partition that the engine is still working on, by the mark in their query ids.
SELECT count() FROM system.processes WHERE position(query_id, {mark:String}) > 0
