-- The publication of updates, and from where in the WAL it may be named to the server: before, it was not there.
ALTER TABLE {schema}.instance ADD COLUMN IF NOT EXISTS updates_oid oid;
ALTER TABLE {schema}.instance ADD COLUMN IF NOT EXISTS updates_version text;
ALTER TABLE {schema}.instance ADD COLUMN IF NOT EXISTS updates_from pg_lsn;
COMMENT ON COLUMN {schema}.instance.updates_oid IS 'the publication of updates; NULL: none is wanted';
COMMENT ON COLUMN {schema}.instance.updates_version IS 'xmin of its row of pg_publication';
COMMENT ON COLUMN {schema}.instance.updates_from IS 'what is decoded from here on may be decoded with it; NULL: not known yet';
