-- rows_stored: how many rows `events` holds: events, dead letters and markers. Known without reading any.
SELECT count() FROM events
