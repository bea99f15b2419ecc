-- 0007_owner_is_the_only_one: rows of a block partition are taken from the owner noted last, and from nobody else.
-- Why    A worker that was stopped between choosing its owner number and noting it may note it after its successor, whose
--        number is greater: with `>=` both could write from then on. With `=` one of them is refused, and starts over.
-- Reads  owners (0001). A slot without an owner has 0.
-- Exact  Both changes of a table are one: there is no moment without a constraint.
-- Undo   The same with >=.
ALTER TABLE events
    DROP CONSTRAINT IF EXISTS owner_is_current,
    ADD CONSTRAINT IF NOT EXISTS owner_is_current CHECK owner = joinGet('{database}.owners', 'owner', toUInt32(block_epoch * 65536 + block_partition));

ALTER TABLE usage_states
    DROP CONSTRAINT IF EXISTS owner_is_current,
    ADD CONSTRAINT IF NOT EXISTS owner_is_current CHECK feature_id != '' OR owner = joinGet('{database}.owners', 'owner', toUInt32(block_epoch * 65536 + block_partition));
