-- What was read of the source's log last: a volume that is put back writes another log at the same places.
ALTER TABLE {schema}.instance ADD COLUMN IF NOT EXISTS read_lsn pg_lsn;
ALTER TABLE {schema}.instance ADD COLUMN IF NOT EXISTS read_xid bigint;
ALTER TABLE {schema}.instance ADD COLUMN IF NOT EXISTS read_commit bigint;
COMMENT ON COLUMN {schema}.instance.read_lsn IS 'where the newest transaction committed that brought a row to any section; NULL: not known';
COMMENT ON COLUMN {schema}.instance.read_xid IS 'its xid (32 bits); NULL: none has brought a row since the instance began at read_lsn';
COMMENT ON COLUMN {schema}.instance.read_commit IS 'when it committed: microseconds since 2000';
