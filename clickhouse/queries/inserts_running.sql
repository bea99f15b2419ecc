-- Inserts of a block partition that the engine is still working on.
SELECT count() FROM system.processes WHERE startsWith(query_id, {prefix:String})
