-- A batch can be in doubt for good: most likely received, never sent again.
ALTER TABLE {schema}.delivery ADD COLUMN IF NOT EXISTS unresolved boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN {schema}.delivery.unresolved IS 'in doubt for good: its rows are settled and are not sent again';
