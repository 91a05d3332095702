-- A batch can be in doubt for good: most likely received, never sent again.
ALTER TABLE {schema}.delivery ADD COLUMN IF NOT EXISTS unresolved boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN {schema}.delivery.unresolved IS 'in doubt for good: its rows are settled and are not sent again';

-- A position is the LSN of the commit, the LSN of the row's own WAL record, and the number of the row within that record.
-- Earlier versions wrote an ordinal over the whole transaction, which depends on what else is published: it says nothing
-- about which rows of its transaction were delivered.
ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS position_change_lsn pg_lsn;
ALTER TABLE {schema}.delivery ADD COLUMN IF NOT EXISTS first_change_lsn pg_lsn;
ALTER TABLE {schema}.delivery ADD COLUMN IF NOT EXISTS last_change_lsn pg_lsn;
ALTER TABLE {schema}.quarantine ADD COLUMN IF NOT EXISTS change_lsn pg_lsn;
COMMENT ON COLUMN {schema}.section.position_change_lsn IS 'LSN of the WAL record of the last settled row';
COMMENT ON COLUMN {schema}.section.position_ordinal IS 'number of the last settled row within its WAL record';

-- A batch that has not ended covers every row of the transactions that it touched.
UPDATE {schema}.delivery
SET first_change_lsn = '0/0', first_ordinal = 0, last_change_lsn = 'FFFFFFFF/FFFFFFFF', last_ordinal = 4294967295
WHERE outcome IN ('sending', 'in_doubt') AND first_lsn IS NOT NULL AND first_change_lsn IS NULL;

-- A transaction that comes again (it commits at the checkpoint or later) is in doubt as a whole, by name.
INSERT INTO {schema}.delivery (id, section, phase, rows, bytes, first_key, last_key, first_lsn, first_change_lsn,
    first_ordinal, last_lsn, last_change_lsn, last_ordinal, outcome, under_way, attempts, finished_at, error, epoch,
    changed)
SELECT greatest(i.last_delivery, (SELECT coalesce(max(d.id), 0) FROM {schema}.delivery AS d))
        + row_number() OVER (ORDER BY s.name),
    s.name, 'stream', least(s.position_ordinal, 2147483646) + 1, 0, '', '', s.position_lsn, '0/0',
    0, s.position_lsn, 'FFFFFFFF/FFFFFFFF', 4294967295, 'in_doubt', false, 1, now(),
    'an earlier version delivered at most so many rows of the transaction that commits at ' || s.position_lsn::text
        || ', and did not record which', i.epoch,
    i.applied_seq
FROM {schema}.section AS s CROSS JOIN {schema}.instance AS i
WHERE s.position_lsn IS NOT NULL AND s.position_change_lsn IS NULL
    AND s.position_lsn >= coalesce(i.checkpoint, '0/0');

UPDATE {schema}.section AS s
SET rows_in_doubt = s.rows_in_doubt + CASE WHEN s.position_lsn >= coalesce(i.checkpoint, '0/0')
        THEN least(s.position_ordinal, 2147483646) + 1 ELSE 0 END,
    position_lsn = CASE WHEN s.position_lsn >= coalesce(i.checkpoint, '0/0')
        THEN s.position_lsn - 1::numeric ELSE s.position_lsn END,
    position_change_lsn = 'FFFFFFFF/FFFFFFFF', position_ordinal = 4294967295
FROM {schema}.instance AS i
WHERE s.position_lsn IS NOT NULL AND s.position_change_lsn IS NULL;
