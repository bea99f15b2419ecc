-- 0001_owners: who may write the rows of a block partition.
-- Why    A worker that was thought dead may still send an insert; tables refuse a lower owner than the one noted here.
-- Reads  nothing; the counter adds a row for each partition that it is assigned, and the last one wins.
-- Undo   DROP TABLE owners;
CREATE TABLE owners
(
    slot  UInt32 COMMENT 'block epoch * 65536 + block partition',
    owner UInt64 COMMENT 'number of the worker that owns the partition now; greater is later'
)
ENGINE = Join(ANY, LEFT, slot)
SETTINGS join_any_take_last_row = 1;
