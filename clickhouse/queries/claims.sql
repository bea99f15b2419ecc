-- The claims of a block partition's events after one offset and up to another, in any order: key and content as the
-- counter computes them. Duplicates, dead letters and markers claim nothing; a re-sent event claims the row that it
-- supersedes. An id is there again when it came back after the horizon: its claim is the one of the latest position.
SELECT
    substring(SHA256(concat(account, '\0', event_id)), 1, 16) AS id_key,
    toFixedString(if(
        superseded_offset < 0,
        id_key,
        substring(SHA256(concat(id_key, toString(superseded_epoch), ':', toString(superseded_offset), ':', toString(superseded_index))), 1, 16)
    ), 16) AS key,
    block_epoch, block_offset, block_index,
    toUnixTimestamp64Milli(block_time) AS block_time_ms,  -- another name than the column: WHERE means it
    toUInt32(bitXor(
        bitXor(CRC32(properties), CRC32(external_customer_id)),
        bitXor(
            bitXor(toUInt32(CRC32(event_name) * 3), toUInt32(CRC32(source) * 5)),
            if(timestamp_given, toUInt32(bitAnd(toUnixTimestamp64Milli(timestamp), 4294967295)), 0)
        )
    )) AS content
FROM events
WHERE block_epoch = {epoch:UInt16} AND block_partition = {partition:UInt16}
  AND block_offset > {after:Int64} AND block_offset <= {upto:Int64}
  AND verdict NOT IN ('duplicate', 'dead_letter', 'marker')
  AND block_time >= fromUnixTimestamp64Milli({since:Int64})
