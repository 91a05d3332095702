-- What is remembered of a compared result is forgotten with time (`within`): a longer `within` must not ask for it again.
ALTER TABLE {schema}.diff ADD COLUMN IF NOT EXISTS forgotten jsonb;
COMMENT ON COLUMN {schema}.diff.forgotten IS 'by the name of a date column: rows of an earlier date may have been sent and forgotten; NULL: none';
