-- verify_deleting: how many deletes of states are under way (the engine does one after the other), and what hinders them.
SELECT count(), any(nullIf(latest_fail_reason, '')) FROM system.mutations
WHERE database = currentDatabase() AND table = 'usage_states' AND NOT is_done
