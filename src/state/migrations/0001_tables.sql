-- One row: which server and slot this state belongs to, who may write, and how far everything is settled.
CREATE TABLE IF NOT EXISTS {schema}.instance (
    id integer PRIMARY KEY CHECK (id = 1),
    schema_version integer NOT NULL,
    system_identifier text,
    timeline integer,
    database_oid oid,
    database text,
    slot text,
    publication text,
    publication_oid oid,
    epoch bigint NOT NULL DEFAULT 0,
    applied_seq bigint NOT NULL DEFAULT 0,
    applied_digest bigint NOT NULL DEFAULT 0,
    last_delivery bigint NOT NULL DEFAULT 0,
    checkpoint pg_lsn,
    xmin_floor bigint,
    leader text,
    started_at timestamptz,
    version text,
    state text,
    reason text,
    remedy text
) WITH (fillfactor = 50);
COMMENT ON TABLE {schema}.instance IS 'identity, epoch and checkpoint; written by the leader only';
COMMENT ON COLUMN {schema}.instance.applied_seq IS 'number of the last applied list of writes: the same one twice is applied once';
COMMENT ON COLUMN {schema}.instance.xmin_floor IS 'every transaction below this 64-bit xid is settled';

CREATE TABLE IF NOT EXISTS {schema}.section (
    name text PRIMARY KEY,
    table_oid oid,
    table_name text,
    kind text,
    phase text NOT NULL CHECK (phase IN ('waiting', 'backfilling', 'resyncing', 'streaming')),
    attach_lsn pg_lsn,
    attached_at timestamptz,
    columns jsonb NOT NULL DEFAULT '[]',
    position_lsn pg_lsn,
    position_ordinal bigint,
    cursor text,
    ceiling text,
    streamed text NOT NULL DEFAULT '',
    backfill_rows bigint NOT NULL DEFAULT 0,
    backfill_estimated bigint NOT NULL DEFAULT 0,
    backfill_started_at timestamptz,
    rows_delivered bigint NOT NULL DEFAULT 0,
    rows_quarantined bigint NOT NULL DEFAULT 0,
    rows_in_doubt bigint NOT NULL DEFAULT 0,
    rows_resent bigint NOT NULL DEFAULT 0,
    paused boolean NOT NULL DEFAULT false,
    halted_reason text,
    halted_remedy text,
    last_delivered_at timestamptz,
    CHECK ((position_lsn IS NULL) = (position_ordinal IS NULL)),
    CHECK ((halted_reason IS NULL) = (halted_remedy IS NULL))
) WITH (fillfactor = 50);
COMMENT ON TABLE {schema}.section IS 'how far each section is, and its totals';

CREATE TABLE IF NOT EXISTS {schema}.delivery (
    id bigint PRIMARY KEY,
    section text NOT NULL,
    phase text NOT NULL CHECK (phase IN ('backfill', 'stream', 'resync', 'retry')),
    rows integer NOT NULL,
    bytes bigint NOT NULL,
    first_key text NOT NULL,
    last_key text NOT NULL,
    first_lsn pg_lsn,
    first_ordinal bigint,
    last_lsn pg_lsn,
    last_ordinal bigint,
    outcome text NOT NULL
        CHECK (outcome IN ('sending', 'delivered', 'partial', 'in_doubt', 'resent', 'held', 'quarantined')),
    under_way boolean NOT NULL,
    http_status integer,
    attempts integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    error text NOT NULL DEFAULT '',
    epoch bigint NOT NULL,
    changed bigint NOT NULL
) WITH (fillfactor = 80);
COMMENT ON TABLE {schema}.delivery IS 'the ledger: one row for each batch';
COMMENT ON COLUMN {schema}.delivery.changed IS 'instance.applied_seq of the last write to this row; ascends as rows change';
CREATE INDEX IF NOT EXISTS delivery_open ON {schema}.delivery (id) WHERE outcome IN ('sending', 'in_doubt');
CREATE INDEX IF NOT EXISTS delivery_section ON {schema}.delivery (section, id);
CREATE INDEX IF NOT EXISTS delivery_started ON {schema}.delivery (started_at);
CREATE INDEX IF NOT EXISTS delivery_changed ON {schema}.delivery (changed);

CREATE TABLE IF NOT EXISTS {schema}.quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    section text NOT NULL,
    key text NOT NULL,
    reason text NOT NULL,
    item text NOT NULL,
    lsn pg_lsn,
    ordinal bigint,
    delivery bigint,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE {schema}.quarantine IS 'rows that could not be delivered, until someone retries or drops them';
CREATE INDEX IF NOT EXISTS quarantine_section ON {schema}.quarantine (section, id);

CREATE TABLE IF NOT EXISTS {schema}.gap (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    section text,
    reason text NOT NULL,
    detail text NOT NULL,
    from_lsn pg_lsn,
    to_lsn pg_lsn,
    xmin_floor bigint,
    opened_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    closed_by text
);
COMMENT ON TABLE {schema}.gap IS 'stretches of the log that could not be read, and how each was closed';

CREATE TABLE IF NOT EXISTS {schema}.event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    section text,
    args jsonb NOT NULL DEFAULT '{}',
    handled_at timestamptz,
    result text
);
COMMENT ON TABLE {schema}.event IS 'what operators asked for; the running instance handles it and writes the result';
CREATE INDEX IF NOT EXISTS event_unhandled ON {schema}.event (id) WHERE handled_at IS NULL;
