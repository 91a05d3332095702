-- A gap is read again by the rows' transactions: only those from this one on.
ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS gap_floor bigint;
COMMENT ON COLUMN {schema}.section.gap_floor IS 'the range reads only rows whose 64-bit xmin is not below this';
