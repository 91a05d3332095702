-- Servers that answer at one address may be behind each other: a result is never compared by one that has seen less than the last.
ALTER TABLE {schema}.diff ADD COLUMN IF NOT EXISTS read_at text;
COMMENT ON COLUMN {schema}.diff.read_at IS 'where the log of the server was that was read: its system and timeline, and the LSN; NULL: not known';
