-- 0008_events_merged_by_tens: parts of events are merged ten at a time, not five.
-- Why    Over ten minutes at full load merges take more of the engine's time than inserts, and a row is written again at each of their
--        levels: by tens there are a third fewer. usage_states keeps five: it is small, and what is read of it grows with its parts.
-- Reads  events (0002). It holds from the next merge on.
-- Undo   ALTER TABLE events RESET SETTING merge_selector_base;
ALTER TABLE events MODIFY SETTING merge_selector_base = 10;
