//! The machine and the server that everything runs on.

use crate::harness::Cluster;

/// A server that keeps everything in memory: the disk is not what is measured.
pub async fn server() -> Cluster {
    let settings = [
        ("fsync", "off"),
        ("shared_buffers", "512MB"),
        ("max_wal_size", "16GB"),
        ("checkpoint_timeout", "1h"),
        ("autovacuum", "off"),
        ("max_replication_slots", "120"),
        ("max_wal_senders", "40"),
        ("listen_addresses", "*"),
        ("ssl", "on"),
        ("ssl_cert_file", "server.crt"),
        ("ssl_key_file", "server.key"),
        ("log_replication_commands", "off"),
    ];
    let builder = settings.iter().fold(Cluster::builder(), |builder, (name, value)| builder.setting(name, value));
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "the bench");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let builder = builder.file("server.crt", certificate).file("server.key", key.serialize_pem());
    builder.hba("local all all trust\nhost all all all trust\nhost replication all all trust").start().await
}

/// Says what was measured on what.
pub async fn describe(cluster: &Cluster, rows: u64, times: u64) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "machine: {cores} cores, {}; load {}",
        model.trim_start_matches([' ', '\t', ':']).trim(),
        read("/proc/loadavg").trim()
    );
    println!(
        "kernel: {}, {} over TCP",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/sys/net/ipv4/tcp_congestion_control").trim()
    );
    println!("server: {}", cluster.text("SHOW server_version").await);
    println!("{rows} rows; medians of {times} runs, in turn with the limit's\n");
}
