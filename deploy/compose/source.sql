-- The source application's table, for the demonstration.
CREATE TABLE app_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_email text NOT NULL,
    event_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
