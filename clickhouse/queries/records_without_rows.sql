-- records_without_rows: of each partition of a source topic, how many of the records between the first that was counted
-- since a moment (ms) and the partition's end have no row: every record makes an event or a dead letter.
-- Margin Records are counted a little out of order, so the first tenth of the stretch is not judged.
SELECT
    log_partition,
    toInt64(transform(log_partition, {partitions:Array(UInt16)}, {ends:Array(Int64)}, toInt64(0))) AS end,
    groupArray(toInt64(log_offset)) AS offsets,
    arrayMin(offsets) AS lowest,
    lowest + intDiv(end - lowest, 10) AS first,
    end - first - arrayCount(offset -> offset >= first, offsets) AS missing
FROM
(
    SELECT DISTINCT log_partition, log_offset
    FROM events
    WHERE log_topic = {topic:String} AND block_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
      AND toInt64(log_offset) < transform(log_partition, {partitions:Array(UInt16)}, {ends:Array(Int64)}, toInt64(0))
      AND log_epoch =
      (
          SELECT max(log_epoch) FROM events
          WHERE log_topic = {topic:String} AND block_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
      )
)
GROUP BY log_partition
