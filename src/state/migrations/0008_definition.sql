-- What a section was when it was last taken over: its key is part of what its cursor means, and `plan` compares the rest.
ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS key_columns text[];
COMMENT ON COLUMN {schema}.section.key_columns IS 'the columns of the key, in order; NULL: not recorded yet';
ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS definition jsonb;
COMMENT ON COLUMN {schema}.section.definition IS 'the section as configured, key by key; NULL: not recorded yet';
