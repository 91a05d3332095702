-- What was settled of a compared result (`read: diff`): 26 bytes a row, in blocks in the order of the keys' digests.
CREATE TABLE IF NOT EXISTS {schema}.seen (
    section text NOT NULL,
    run bigint NOT NULL,
    first bytea NOT NULL,
    columns bigint NOT NULL,
    rows integer NOT NULL,
    entries bytea NOT NULL,
    PRIMARY KEY (section, run, first)
);
-- Digests do not compress: to try costs time at every write.
ALTER TABLE {schema}.seen ALTER COLUMN entries SET STORAGE EXTERNAL;
COMMENT ON TABLE {schema}.seen IS 'settled rows of compared results: digest of the key (16 bytes), of the mapped values (8), day (2)';
COMMENT ON COLUMN {schema}.seen.run IS 'the run that settled them; where two hold one key, the later run counts';
COMMENT ON COLUMN {schema}.seen.columns IS 'a digest of the names of the columns whose values were compared';

CREATE TABLE IF NOT EXISTS {schema}.diff (
    section text PRIMARY KEY,
    run bigint NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    rows bigint NOT NULL,
    new bigint NOT NULL,
    changed bigint NOT NULL,
    gone bigint NOT NULL,
    key text[] NOT NULL,
    columns text[] NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE {schema}.diff IS 'the last comparison of each section with read: diff';
COMMENT ON COLUMN {schema}.diff.columns IS 'the columns whose values were compared';

ALTER TABLE {schema}.delivery ADD COLUMN IF NOT EXISTS first_digest bytea;
ALTER TABLE {schema}.delivery ADD COLUMN IF NOT EXISTS last_digest bytea;
COMMENT ON COLUMN {schema}.delivery.first_digest IS 'digest of the first key, where the rows came out of a compared result';

ALTER TABLE {schema}.delivery DROP CONSTRAINT IF EXISTS delivery_phase_check;
ALTER TABLE {schema}.delivery ADD CONSTRAINT delivery_phase_check
    CHECK (phase IN ('backfill', 'stream', 'resync', 'retry', 'diff'));
ALTER TABLE {schema}.section DROP CONSTRAINT IF EXISTS section_phase_check;
ALTER TABLE {schema}.section ADD CONSTRAINT section_phase_check
    CHECK (phase IN ('waiting', 'backfilling', 'resyncing', 'streaming', 'comparing'));
