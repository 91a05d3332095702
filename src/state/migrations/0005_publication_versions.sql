-- What the publication was when it was last seen in order. Switched and switched back between two looks it looks the same,
-- and is another version of its row.
ALTER TABLE {schema}.instance ADD COLUMN IF NOT EXISTS publication_version text;
COMMENT ON COLUMN {schema}.instance.publication_version IS 'xmin of the row of pg_publication; NULL: not recorded yet';
ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS publication_entry text;
COMMENT ON COLUMN {schema}.section.publication_entry IS 'OID and xmin of what publishes the table; NULL: not recorded yet';
