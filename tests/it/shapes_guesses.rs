//! `discover TABLE` on tables as public projects have them (their columns, from their published schemas): each guess is
//! right, or its line says that it is a guess.

use std::time::Duration;

use crate::harness::{App, Cluster, ConfigText, eventually};

/// What a field may be right with: columns, or constants in braces. Nothing: it is right to leave it out.
type Fields = &'static [(&'static str, &'static [&'static str])];

struct Public {
    table: &'static str,
    columns: &'static str,
    kind: &'static str,
    fields: Fields,
}

const PUBLIC: &[Public] = &[
    Public {
        table: "mattermost_audits",
        columns: "id varchar(26) PRIMARY KEY, createat bigint, userid varchar(26), action varchar(512), extrainfo varchar(1024),
            ipaddress varchar(64), sessionid varchar(26)",
        kind: "user_activity",
        fields: &[("externalId", &["userid"]), ("action", &["action"])],
    },
    Public {
        table: "mattermost_posts",
        columns: "id varchar(26) PRIMARY KEY, createat bigint, updateat bigint, deleteat bigint, userid varchar(26),
            channelid varchar(26), rootid varchar(26), message varchar(65535), type varchar(26), props jsonb, hashtags varchar(1000),
            hasreactions boolean",
        kind: "user_activity",
        fields: &[("externalId", &["userid"]), ("action", &["{ value: mattermost_posts }"])],
    },
    Public {
        table: "umami_website_event",
        columns: "event_id uuid PRIMARY KEY, website_id uuid NOT NULL, session_id uuid NOT NULL, visit_id uuid NOT NULL,
            created_at timestamptz, url_path varchar(500) NOT NULL, url_query varchar(500), referrer_domain varchar(500),
            page_title varchar(500), event_type integer NOT NULL, event_name varchar(50), tag varchar(50), hostname varchar(100)",
        kind: "user_activity",
        fields: &[("externalId", &["session_id"]), ("action", &["event_name"]), ("date", &["created_at"])],
    },
    Public {
        table: "umami_session",
        columns: "session_id uuid PRIMARY KEY, website_id uuid NOT NULL, browser varchar(20), os varchar(20), device varchar(20),
            screen varchar(11), language varchar(35), country char(2), region varchar(20), city varchar(50),
            created_at timestamptz, distinct_id varchar(50)",
        kind: "user_activity",
        fields: &[("externalId", &["distinct_id"]), ("date", &["created_at"])],
    },
    Public {
        table: "pagila_payment",
        columns: "payment_id integer, customer_id integer NOT NULL, staff_id integer NOT NULL, rental_id integer NOT NULL,
            amount numeric(5,2) NOT NULL, payment_date timestamptz NOT NULL, PRIMARY KEY (payment_date, payment_id)",
        kind: "custom_metric",
        fields: &[("dimensionId", &["{ value: pagila_payment }"]), ("value", &["amount"]), ("externalId", &["customer_id"]), ("date", &["payment_date"])],
    },
    Public {
        table: "pagila_rental",
        columns: "rental_id integer PRIMARY KEY, rental_date timestamptz NOT NULL, inventory_id integer NOT NULL,
            customer_id integer NOT NULL, return_date timestamptz, staff_id integer NOT NULL, last_update timestamptz NOT NULL",
        kind: "user_activity",
        fields: &[("externalId", &["customer_id"]), ("date", &["rental_date"])],
    },
    Public {
        table: "discourse_user_actions",
        columns: "id integer PRIMARY KEY, action_type integer NOT NULL, user_id integer NOT NULL, target_topic_id integer,
            target_post_id integer, target_user_id integer, acting_user_id integer, created_at timestamp NOT NULL,
            updated_at timestamp NOT NULL",
        kind: "user_activity",
        fields: &[("externalId", &["acting_user_id"]), ("date", &["created_at"])],
    },
    Public {
        table: "discourse_user_visits",
        columns: "id integer PRIMARY KEY, user_id integer NOT NULL, visited_at date NOT NULL, posts_read integer, mobile boolean,
            time_read integer NOT NULL",
        kind: "custom_metric",
        fields: &[("dimensionId", &["{ value: posts_read }"]), ("externalId", &["user_id"]), ("value", &["posts_read"]), ("date", &["visited_at"])],
    },
    Public {
        table: "discourse_application_requests",
        columns: "id integer PRIMARY KEY, date date NOT NULL, req_type integer NOT NULL, count integer NOT NULL",
        kind: "custom_metric",
        fields: &[("dimensionId", &["{ value: discourse_application_requests }"]), ("value", &["count"]), ("date", &["date"])],
    },
    Public {
        table: "gitlab_events",
        columns: "id bigint PRIMARY KEY, project_id bigint, author_id bigint NOT NULL, created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL, action smallint NOT NULL, target_type varchar, group_id bigint, fingerprint bytea,
            target_id bigint",
        kind: "user_activity",
        fields: &[("externalId", &["author_id"]), ("date", &["created_at"])],
    },
    Public {
        table: "gitlab_audit_events",
        columns: "id bigint NOT NULL, author_id bigint NOT NULL, entity_id bigint NOT NULL, entity_type varchar NOT NULL,
            details text, ip_address inet, author_name text, entity_path text, target_details text, created_at timestamp NOT NULL,
            target_type text, target_id bigint, PRIMARY KEY (id, created_at)",
        kind: "user_activity",
        fields: &[("externalId", &["author_id"]), ("date", &["created_at"])],
    },
    Public {
        table: "zulip_useractivity",
        columns: "id integer PRIMARY KEY, query varchar(50) NOT NULL, count integer NOT NULL, last_visit timestamptz NOT NULL,
            client_id integer NOT NULL, user_profile_id integer NOT NULL",
        kind: "user_activity",
        fields: &[("externalId", &["user_profile_id"]), ("weight", &["count"]), ("date", &["last_visit"]), ("companyExternalId", &[])],
    },
    Public {
        table: "zulip_usercount",
        columns: "id bigint PRIMARY KEY, property varchar(32) NOT NULL, subgroup varchar(16), end_time timestamptz NOT NULL,
            value bigint NOT NULL, realm_id integer NOT NULL, user_id integer NOT NULL",
        kind: "custom_metric",
        fields: &[("dimensionId", &["property"]), ("value", &["value"]), ("externalId", &["user_id"]), ("date", &["end_time"])],
    },
    Public {
        table: "zulip_realmauditlog",
        columns: "id integer PRIMARY KEY, event_type smallint NOT NULL, event_time timestamptz NOT NULL, backfilled boolean NOT NULL,
            extra_data jsonb NOT NULL, acting_user_id integer, modified_user_id integer, realm_id integer NOT NULL",
        kind: "user_activity",
        fields: &[("externalId", &["acting_user_id"]), ("date", &["event_time"])],
    },
    Public {
        table: "lago_events",
        columns: "id uuid PRIMARY KEY, organization_id uuid NOT NULL, transaction_id varchar NOT NULL, code varchar NOT NULL,
            properties jsonb NOT NULL, \"timestamp\" timestamp, external_customer_id varchar, external_subscription_id varchar,
            created_at timestamp NOT NULL, updated_at timestamp NOT NULL, deleted_at timestamp, metadata jsonb NOT NULL",
        kind: "user_activity",
        fields: &[("companyExternalId", &["external_customer_id"]), ("date", &["timestamp"]), ("info", &["properties"])],
    },
    Public {
        table: "lago_wallet_transactions",
        columns: "id uuid PRIMARY KEY, wallet_id uuid NOT NULL, transaction_type integer NOT NULL, status integer NOT NULL,
            amount numeric(30,5) NOT NULL, credit_amount numeric(30,5) NOT NULL, settled_at timestamp, created_at timestamp NOT NULL,
            updated_at timestamp NOT NULL, organization_id uuid NOT NULL",
        kind: "custom_metric",
        fields: &[("dimensionId", &["{ value: lago_wallet_transactions }"]), ("value", &["amount"]), ("externalId", &["organization_id"]), ("date", &["created_at", "settled_at"])],
    },
    Public {
        table: "segment_tracks",
        columns: "id varchar(512) PRIMARY KEY, received_at timestamptz, uuid bigint, anonymous_id varchar(512), context_ip varchar(512),
            context_library_name varchar(512), event varchar(512), event_text varchar(512), original_timestamp timestamptz,
            sent_at timestamptz, \"timestamp\" timestamptz, user_id varchar(512), uuid_ts timestamptz",
        kind: "user_activity",
        fields: &[("externalId", &["user_id"]), ("action", &["event"]), ("date", &["timestamp"])],
    },
    Public {
        table: "segment_pages",
        columns: "id varchar(512) PRIMARY KEY, received_at timestamptz, anonymous_id varchar(512), name varchar(512), path varchar(512),
            referrer varchar(512), title varchar(512), url varchar(512), sent_at timestamptz, \"timestamp\" timestamptz,
            user_id varchar(512)",
        kind: "user_activity",
        fields: &[("externalId", &["user_id"]), ("date", &["timestamp"])],
    },
    Public {
        table: "metabase_query_execution",
        columns: "id integer PRIMARY KEY, hash bytea NOT NULL, started_at timestamptz NOT NULL, running_time integer NOT NULL,
            result_rows integer NOT NULL, native boolean NOT NULL, context varchar(32), error text, executor_id integer,
            card_id integer, dashboard_id integer, pulse_id integer, database_id integer",
        kind: "user_activity",
        fields: &[("externalId", &["executor_id"]), ("date", &["started_at"])],
    },
    Public {
        table: "chatwoot_messages",
        columns: "id integer PRIMARY KEY, content text, account_id integer NOT NULL, inbox_id integer NOT NULL,
            conversation_id integer NOT NULL, message_type integer NOT NULL, created_at timestamp NOT NULL,
            updated_at timestamp NOT NULL, private boolean NOT NULL, status integer, source_id varchar, content_type integer NOT NULL,
            content_attributes json, sender_type varchar, sender_id bigint, external_source_ids jsonb",
        kind: "user_activity",
        fields: &[("externalId", &["sender_id"]), ("companyExternalId", &["account_id"]), ("date", &["created_at"])],
    },
    Public {
        table: "calcom_booking",
        columns: "id integer PRIMARY KEY, uid text NOT NULL, \"userId\" integer, title text NOT NULL, \"userPrimaryEmail\" text,
            \"startTime\" timestamp NOT NULL, \"endTime\" timestamp NOT NULL, \"createdAt\" timestamp NOT NULL, status text NOT NULL,
            paid boolean NOT NULL, metadata jsonb",
        kind: "user_activity",
        fields: &[("externalId", &["userId"]), ("email", &["userPrimaryEmail"]), ("date", &["createdAt", "startTime"])],
    },
    Public {
        table: "usage_daily",
        columns: "account_id bigint NOT NULL, day date NOT NULL, logins integer NOT NULL, api_calls bigint NOT NULL,
            active_users integer NOT NULL, PRIMARY KEY (account_id, day)",
        kind: "custom_metric",
        fields: &[("externalId", &["account_id"]), ("value", &["logins"]), ("date", &["day"]), ("dimensionId", &["{ value: logins }"])],
    },
];

#[tokio::test]
async fn case_143_each_guess_for_a_public_table_is_right_or_says_that_it_is_one() {
    assert!(PUBLIC.len() >= 20);
    let cluster = Cluster::start().await;
    for Public { table, columns, .. } in PUBLIC {
        cluster.sql(&format!("CREATE TABLE {table} ({columns})")).await;
    }
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9");
    let mut wrong = Vec::new();
    // A mark is no excuse for a bad guess: of what can be judged, most must be right, marked or not.
    let (mut right_ones, mut marked_and_wrong) = (0, Vec::new());
    for Public { table, kind, fields, columns } in PUBLIC {
        let output = App::command(&config, &["discover", table]).await;
        assert_eq!(output.code, 0, "{table}: {}", output.stderr);
        let whole = format!("{}{}", config.render(), output.stdout);
        let loaded =
            pg2planhat::testing::config::parse(&whole, table).unwrap_or_else(|errors| panic!("{errors}\n{whole}"));
        let lines: Vec<&str> = output.stdout.lines().filter(|line| !line.starts_with('#')).collect();
        // Of a wide table the first section stands for the others.
        let first: Vec<&str> = lines
            .iter()
            .enumerate()
            .take_while(|(at, line)| *at < 2 || !line.starts_with("  - name:"))
            .map(|(_, line)| *line)
            .collect();
        let line = |key: &str| first.iter().find(|line| line.trim_start().starts_with(&format!("{key}:"))).copied();
        let is_marked = |line: &str| line.contains("guess") || line.contains("no column looks");
        if line("kind").is_none_or(|line| !line.contains(kind)) {
            wrong.push(format!("{table}: not a {kind}"));
        }
        if columns.contains("timestamp") || columns.contains(" date") {
            assert!(!loaded.sections[0].date_receipt, "{table}: a time is there, and the receipt is guessed");
        }
        for (field, right) in *fields {
            match line(field) {
                None if right.is_empty() => right_ones += 1,
                None => wrong.push(format!("{table}: {field} is not guessed")),
                Some(line) => {
                    let said = line.split_once(':').map(|(_, rest)| rest.split(" #").next().unwrap_or_default().trim());
                    let is_right = right.iter().any(|right| said == Some(*right));
                    match (is_right, is_marked(line)) {
                        (true, _) => right_ones += 1,
                        (false, true) => marked_and_wrong.push(format!("{table}: {}", line.trim())),
                        (false, false) => wrong.push(format!("{table}: {}", line.trim())),
                    }
                }
            }
        }
        // What nobody has judged here must not look certain.
        for field in ["email", "externalId", "companyExternalId", "action", "weight", "dimensionId", "value", "date"] {
            let is_judged = fields.iter().any(|(judged, _)| *judged == field);
            if let Some(line) = line(field).filter(|line| !is_judged && !is_marked(line)) {
                wrong.push(format!("{table}: nobody has judged {}", line.trim()));
            }
        }
    }
    eprintln!("{right_ones} right; marked and wrong:\n{}", marked_and_wrong.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(marked_and_wrong.len() * 10 <= right_ones, "{}", marked_and_wrong.join("\n"));
    let wide = App::command(&config, &["--json", "discover", "usage_daily"]).await.json();
    let values: Vec<&serde_json::Value> =
        wide["sections"].as_array().unwrap().iter().map(|one| &one["fields"]["value"]).collect();
    assert_eq!(values, ["logins", "api_calls", "active_users"], "{wide}");
}

/// A view is compared; a table whose rows are upserted by a key of the business sends each version; another is as ever.
#[tokio::test]
async fn case_157_how_a_table_is_read_is_guessed_from_the_catalog() {
    let cluster = Cluster::start().await;
    cluster
        .sql(
            "CREATE TABLE usage_daily (account_id text, day date, logins int, PRIMARY KEY (account_id, day));
             INSERT INTO usage_daily VALUES ('a', '2026-01-01', 10); UPDATE usage_daily SET logins = 25;
             CREATE TABLE seats (id bigint PRIMARY KEY, account_id text, day date, logins int);
             INSERT INTO seats VALUES (1, 'a', '2026-01-01', 10); UPDATE seats SET logins = 25;
             CREATE VIEW usage_view AS SELECT * FROM usage_daily",
        )
        .await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9");
    let guess = async |table: &str| {
        let output = App::command(&config, &["discover", table]).await;
        assert_eq!(output.code, 0, "{table}: {}", output.stderr);
        let whole = format!("{}{}", config.render(), output.stdout);
        let loaded = pg2planhat::testing::config::parse(&whole, table);
        (loaded.unwrap_or_else(|errors| panic!("{errors}\n{whole}")).sections.remove(0), output.stdout)
    };
    eventually(Duration::from_secs(30), "the statistics", async || {
        let (section, text) = guess("usage_daily").await;
        section.sends_updates().then(|| assert!(text.contains("guess: its rows were updated 1 times"), "{text}"))
    })
    .await;
    let (view, text) = guess("usage_view").await;
    assert!(view.diff().is_some() && text.contains("it has no log of its own"), "{text}");
    let (seats, text) = guess("seats").await;
    assert!(!seats.sends_updates() && seats.is_streamed(), "{text}");
    let document = App::command(&config, &["--json", "discover", "usage_daily"]).await.json();
    assert_eq!(document["section"]["on"], "insert_and_update", "{document}");
}
