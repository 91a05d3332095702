-- The keys that the stream brought beside a backfill: each write adds what is new since the one before.
CREATE TABLE IF NOT EXISTS {schema}.streamed (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    section text NOT NULL,
    keys bytea NOT NULL
);
COMMENT ON TABLE {schema}.streamed IS 'keys that the stream brought beside a backfill, which leaves them out: ranges of integers, digests of others';
CREATE INDEX IF NOT EXISTS streamed_section ON {schema}.streamed (section, id);
COMMENT ON COLUMN {schema}.section.streamed IS 'as table streamed, of versions before it';

-- Where a backfill's range begins, so that its end can count what was settled against what is there.
ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS range_known boolean NOT NULL DEFAULT false;
ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS range_from text;
COMMENT ON COLUMN {schema}.section.range_from IS 'the range is of keys greater than this; NULL, where range_known: from the first key on';
