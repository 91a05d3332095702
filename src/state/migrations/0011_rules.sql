-- By which rules (`where`, `on_null`) rows are left out, and since when: what an earlier rule left out is not missing.
ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS rules text;
ALTER TABLE {schema}.section ALTER COLUMN rules SET DEFAULT '';
COMMENT ON COLUMN {schema}.section.rules IS 'the rules that leave rows out; empty: not taken over yet; NULL: attached by a version that did not record them';
ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS rules_since bigint;
COMMENT ON COLUMN {schema}.section.rules_since IS 'transactions from this 64-bit xid on are judged by these rules alone; NULL: all are; the greatest number: not known yet';
