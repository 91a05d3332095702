-- What each batch carried, kept small, so that any row can be traced and any section held against its source.
CREATE TABLE IF NOT EXISTS {schema}.delivery_keys (
    delivery bigint PRIMARY KEY,
    section text NOT NULL,
    keys bytea NOT NULL
);
COMMENT ON TABLE {schema}.delivery_keys IS 'the keys of each batch of the ledger: integers as ranges, others as digests';
CREATE INDEX IF NOT EXISTS delivery_keys_section ON {schema}.delivery_keys (section, delivery);

CREATE TABLE IF NOT EXISTS {schema}.tally (
    section text NOT NULL,
    block bigint NOT NULL,
    rows bigint NOT NULL,
    digest bigint NOT NULL,
    PRIMARY KEY (section, block)
) WITH (fillfactor = 70);
COMMENT ON TABLE {schema}.tally IS 'rows delivered since the section attached, by block of keys: count, and the digests combined by XOR';

CREATE TABLE IF NOT EXISTS {schema}.dropped (
    section text NOT NULL,
    key text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE {schema}.dropped IS 'rows that a person dropped from quarantine: never delivered, on purpose';
CREATE INDEX IF NOT EXISTS dropped_section ON {schema}.dropped (section, key);

CREATE TABLE IF NOT EXISTS {schema}.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    section text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    cause text NOT NULL,
    result jsonb NOT NULL
);
COMMENT ON TABLE {schema}.audit IS 'what audits found, newest last';
CREATE INDEX IF NOT EXISTS audit_section ON {schema}.audit (section, id);

ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS provable_from bigint;
COMMENT ON COLUMN {schema}.section.provable_from IS 'the last delivery before keys were kept; NULL: every batch of the section has its keys';
UPDATE {schema}.section s SET provable_from = i.last_delivery
    FROM {schema}.instance i
    WHERE s.provable_from IS NULL AND s.rows_delivered > 0
        AND NOT EXISTS (SELECT FROM {schema}.delivery_keys k WHERE k.section = s.name);
ALTER TABLE {schema}.section ADD COLUMN IF NOT EXISTS attach_xmin bigint;
COMMENT ON COLUMN {schema}.section.attach_xmin IS 'every transaction below this 64-bit xid had ended when the section attached';
