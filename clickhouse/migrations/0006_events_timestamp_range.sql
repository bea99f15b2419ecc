-- 0006_events_timestamp_range: parts that hold no event of a range of time are not read for it.
-- Why    A cut inside of an hour reads the events of that hour. Time is the last column of the key: for each name and customer every
--        part gave one granule or two, whenever its events were. Blocks are of one time, so are most parts.
-- Reads  events (0002). Parts that exist have no such index until they merge; they are read as before.
-- Undo   ALTER TABLE events DROP INDEX timestamp_range;
ALTER TABLE events ADD INDEX IF NOT EXISTS timestamp_range timestamp TYPE minmax GRANULARITY 1;
