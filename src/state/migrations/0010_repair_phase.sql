-- What an audit found missing and a person asked for is delivered as a repair.
ALTER TABLE {schema}.delivery DROP CONSTRAINT IF EXISTS delivery_phase_check;
ALTER TABLE {schema}.delivery ADD CONSTRAINT delivery_phase_check
    CHECK (phase IN ('backfill', 'stream', 'resync', 'retry', 'diff', 'repair'));
