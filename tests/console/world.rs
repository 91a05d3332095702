//! The world: a database with two tables, the stand-in, and the program with its console.

use std::time::Duration;

use pg2planhat::testing::sim::{Sim, SimHandle, SimOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::port::Port;
use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};

/// Tokens, and their digests as `pg2planhat console token` would print them.
pub const OPERATOR: &str = "pg2planhat_operator_of_the_tests";
pub const VIEWER: &str = "pg2planhat_viewer_of_the_tests";

pub struct World {
    pub cluster: Cluster,
    pub sim: SimHandle,
    pub app: App,
    pub config: ConfigText,
    pub port: u16,
    _port: Port,
}

pub struct Answered {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answered {
    /// A header's values.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

impl World {
    pub async fn new() -> World {
        World::with(|config| config).await
    }

    /// A world whose configuration is another.
    pub async fn with(change: impl FnOnce(ConfigText) -> ConfigText) -> World {
        World::of(0, SimOptions::default(), change).await
    }

    /// A world that has rows before the program starts, and a sink that takes its time for each hundred of them.
    pub async fn filled(rows: u64) -> World {
        let slow = SimOptions { latency: Duration::from_millis(400), ..SimOptions::default() };
        let small = |config: ConfigText| {
            let section = SectionText::activity("logins", "app_event").set("batch", "{ rows: 100 }");
            config.without_sections().section(section)
        };
        World::of(rows, slow, small).await
    }

    async fn of(rows: u64, sink: SimOptions, change: impl FnOnce(ConfigText) -> ConfigText) -> World {
        World::made(rows, &[], sink, change).await
    }

    async fn made(
        rows: u64,
        more: &[String],
        sink: SimOptions,
        change: impl FnOnce(ConfigText) -> ConfigText,
    ) -> World {
        World::on(Cluster::start().await, rows, more, sink, change).await
    }

    /// A world whose server writes down each statement, with the name and the process of who put it between bars.
    pub async fn loud() -> World {
        let cluster = Cluster::builder().setting("log_statement", "all").setting("log_line_prefix", "%t |%a|%p| ");
        World::on(cluster.start().await, 0, &[], SimOptions::default(), |config| config).await
    }

    async fn on(
        cluster: Cluster,
        rows: u64,
        more: &[String],
        sink: SimOptions,
        change: impl FnOnce(ConfigText) -> ConfigText,
    ) -> World {
        cluster.sql(&SectionText::activity_table("app_event")).await;
        cluster.sql(&SectionText::metric_table("usage_daily")).await;
        cluster.sql(&rows_of(rows)).await;
        for sql in more {
            cluster.sql(sql).await;
        }
        let sim = Sim::start(sink).await.unwrap();
        let port = Port::reserve();
        let digest = |token: &str| pg2planhat::testing::console::digest(token);
        let tokens = format!(
            "[{{ name: maria, role: operator, sha256: {} }}, {{ name: support, role: viewer, sha256: {} }}]",
            digest(OPERATOR),
            digest(VIEWER)
        );
        let config = ConfigText::new(&cluster, &sim.url())
            .set("console.listen", format!("127.0.0.1:{}", port.number()))
            .set("console.tokens", tokens)
            .section(SectionText::activity("logins", "app_event"))
            .section(SectionText::metric("seats", "usage_daily"));
        let config = change(config);
        let app = App::launch(&config).arguments(&["run", "--stay"]).start();
        let world = World { cluster, sim, app, config, port: port.number(), _port: port };
        world.app.wait_ready().await;
        world
    }

    /// A world whose names and values would like to be more than text. `{H}` stands for markup, `{R}` turns what follows
    /// around, `{W}` is one word of 10 KB.
    pub async fn hostile() -> World {
        let hostile = |text: &str| {
            text.replace("{H}", "<img src=x onerror=alert(1)>")
                .replace("{R}", "\u{202e}")
                .replace("{W}", &"w".repeat(10_240))
        };
        let table = r#"public."t '{H}{R}txt""#;
        let quoted = |text: &str| serde_json::Value::from(hostile(text)).to_string();
        let more = move |config: ConfigText| {
            let own = SectionText::activity("odd", "x")
                .set("table", quoted(table))
                .set("key", quoted("k '{H}{R}"))
                .field("info", &format!("{{ {}: {} }}", quoted("f '{H}{R}"), quoted("c '{H}{R}")));
            config.without_sections().section(own)
        };
        let sql = hostile(&format!(
            r#"CREATE TABLE {} ("k '{{H}}{{R}}" text PRIMARY KEY, email text, user_id text, action text, weight numeric,
               at timestamptz DEFAULT now(), "c '{{H}}{{R}}" text, "unused '{{H}}{{R}}" text)"#,
            table
        ));
        World::made(0, &[sql], SimOptions::default(), more).await
    }

    /// A world with a section of a long name, of a table that has one, too.
    pub async fn strained() -> World {
        let long = "support_ticket_satisfaction_survey_answers";
        let table = SectionText::activity_table(long);
        let more = move |config: ConfigText| config.section(SectionText::activity(long, long));
        World::made(0, &[table], SimOptions::default(), more).await
    }

    /// An empty folder, a server that wants passwords, and `ui` in front of both.
    pub async fn empty() -> World {
        let hba = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256";
        let cluster = Cluster::builder().hba(hba).start().await;
        cluster.sql(&SectionText::activity_table("app_event")).await;
        cluster.sql(&SectionText::metric_table("usage_daily")).await;
        let more = "CREATE TABLE without_key (a text); CREATE ROLE app_reader LOGIN PASSWORD 'first-secret';
            GRANT SELECT ON app_event, usage_daily TO app_reader;
            INSERT INTO usage_daily (external_id, value) SELECT 'company-' || g, g FROM generate_series(1, 50) g";
        cluster.sql(more).await;
        let sim = Sim::start(SimOptions::default()).await.unwrap();
        let port = Port::reserve();
        let config = ConfigText::new(&cluster, &sim.url());
        let listen = format!("127.0.0.1:{}", port.number());
        let app = App::launch(&config).without_file().arguments(&["ui", "--listen", &listen]).start();
        let world = World { cluster, sim, app, config, port: port.number(), _port: port };
        world.app.wait_log("/login#k=").await;
        world.insert(2000).await;
        world
    }

    /// Ends the program, and starts it with another configuration.
    pub async fn restart(&mut self, config: ConfigText) {
        self.app.sigterm();
        self.app.wait_exit(Duration::from_secs(20)).await;
        self.config = config;
        self.app = App::launch(&self.config).arguments(&["run", "--stay"]).start();
        self.app.wait_ready().await;
    }

    pub async fn insert(&self, rows: u64) {
        self.cluster.sql(&rows_of(rows)).await;
    }

    /// One request; `extra` are header lines. The connection ends with it.
    pub async fn ask(&self, method: &str, path: &str, extra: &str, body: &str) -> Answered {
        let host = format!("127.0.0.1:{}", self.port);
        self.ask_as(&host, method, path, extra, body).await
    }

    pub async fn ask_as(&self, host: &str, method: &str, path: &str, extra: &str, body: &str) -> Answered {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{extra}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut bytes));
        // A stream goes on: what came is enough.
        read.await.ok();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answered { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub async fn wait_delivered(&self, rows: u64) {
        let delivered = || async {
            let found = self.app.metric("rows_delivered_total", &[]).await;
            found.filter(|found| *found >= rows as f64)
        };
        eventually(Duration::from_secs(30), "rows to be delivered", delivered).await;
    }
}

fn rows_of(rows: u64) -> String {
    format!(
        "INSERT INTO app_event (email, user_id, action, weight) SELECT 'p' || g || '@example.com', 'user-' || g, 'login', 1 \
         FROM generate_series(1, {rows}) g"
    )
}

/// The header line of a token.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}
