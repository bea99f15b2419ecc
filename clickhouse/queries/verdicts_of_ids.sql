-- verdicts_of_ids: what became of some events, by their ids: the verdicts of their rows, those superseded left out.
-- Duplicates come last, so that the first row of an id is the one that claimed it.
SELECT event_id, verdict
FROM events
WHERE account = {account:String} AND event_id IN {ids:Array(String)} AND verdict NOT IN ('marker', 'dead_letter')
  AND (event_id, block_epoch, block_offset, block_index) NOT IN
  (
      SELECT event_id, superseded_epoch, toUInt64(superseded_offset), superseded_index
      FROM events
      WHERE account = {account:String} AND event_id IN {ids:Array(String)} AND superseded_offset >= 0
  )
GROUP BY event_id, verdict
ORDER BY event_id, verdict = 'duplicate'
