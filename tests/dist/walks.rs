//! The walks of somebody new, from what is released to flowing rows: by the tarball and the quick start, and by the image as
//! Helm's rendered manifests run it.

use crate::harness::scratch::Scratch;
use crate::harness::{Cluster, ConfigText, SectionText, eventually};
use crate::parts::{folder, image, part, succeed, words};
use crate::tools::{tool, yaml};
use crate::walk_scene::walk;
use pg2planhat::testing::sim::{Sim, SimOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The status of an answer to a probe at this address; none where nobody answers.
async fn probe(address: &str, path: &str) -> Option<u16> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// What a command says, while the stand-in goes on answering.
async fn ended(mut command: Command) -> std::process::Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// An address of this walk alone: the port is the chart's.
fn own_address() -> String {
    static WALKS: AtomicU8 = AtomicU8::new(97);
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{high}.{}", WALKS.fetch_add(1, Ordering::Relaxed), low.max(1))
}

/// A pod's container: its files are where its mounts say, its user is who its security context says, its root is read-only.
struct Pod<'a> {
    root: &'a Path,
    image: &'a Value,
    objects: &'a [Value],
    spec: &'a Value,
}

impl Pod<'_> {
    fn user(&self) -> (u64, u64, u64) {
        let number = |key: &str| self.spec["securityContext"][key].as_u64();
        // Where nothing is said, OpenShift says it: a user of the namespace's own, in the group of root.
        let user = number("runAsUser").unwrap_or(1_000_650_000);
        (user, number("runAsGroup").unwrap_or(0), number("fsGroup").unwrap_or(user))
    }

    /// Writes what is mounted, owned as a kubelet has it.
    fn mount(&self) {
        let (.., group) = self.user();
        for mount in self.spec["containers"][0]["volumeMounts"].as_array().unwrap() {
            let volumes = self.spec["volumes"].as_array().unwrap();
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
            let folder = self.root.join(mount["mountPath"].as_str().unwrap().trim_start_matches('/'));
            std::fs::create_dir_all(&folder).unwrap();
            let mut files = vec![
                ("pg-password".to_owned(), "unused\n".to_owned()),
                ("tenant".to_owned(), ConfigText::TENANT.to_owned()),
            ];
            if let Some(name) = volume["configMap"]["name"].as_str() {
                let named = |object: &&Value| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name;
                let map = self.objects.iter().find(named).unwrap();
                let data = map["data"].as_object().unwrap().iter();
                files = data.map(|(file, text)| (file.clone(), text.as_str().unwrap().to_owned())).collect();
            }
            for (name, text) in files {
                let file = folder.join(name);
                std::fs::write(&file, text).unwrap();
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o440)).unwrap();
                succeed(Command::new("chgrp").arg(group.to_string()).arg(&file));
            }
        }
    }

    fn arguments(&self) -> Vec<String> {
        words(&self.spec["containers"][0]["args"])
    }

    /// The image's entry point with these arguments, and nothing of this machine's environment.
    fn command(&self, arguments: &[String]) -> Command {
        self.mount();
        let (user, group, files) = self.user();
        std::fs::create_dir_all(self.root.join("proc")).unwrap();
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && mount -t proc proc \"$0/proc\" && \
                      exec chroot \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(self.root);
        command.arg(format!("--userspec={user}:{group}")).arg(format!("--groups={files}")).arg(self.root);
        command.args(words(&self.image["Entrypoint"])).args(arguments);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }
}

/// The manifests of one instance that runs here.
fn rendered(cluster: &Cluster, sink: &str, address: &str, more: &str) -> Vec<Value> {
    let values = format!(
        "image: {{ repository: pg2planhat }}\nlistenAddress: {address}\njobs: {{ setup: {{ enabled: true }}, check: {{ enabled: true }} }}\n\
         instances:\n  - name: app\n    config:\n      source: {{ host: 127.0.0.1, port: {}, database: postgres, user: postgres, \
         tls: disable }}\n      planhat: {{ url: \"{sink}\" }}\n      sections:\n        - name: seats\n          kind: custom_metric\n          \
         table: m\n          fields: {{ dimensionId: {{ value: seats }}, value: value, externalId: external_id, date: at }}\n{more}",
        cluster.port()
    );
    let file = Scratch::new("values");
    let values_file = file.path().join("values.yaml");
    std::fs::write(&values_file, values).unwrap();
    yaml(&succeed(tool("helm").args(["template", "rel"]).arg(part(".tgz")).arg("--values").arg(values_file)))
        .into_iter()
        .filter(|object| !object.is_null())
        .collect()
}

/// The Jobs `setup` and `check`, then the Deployment, until rows flow, and its end.
async fn walk_by_manifests(more: &str) {
    let began = Instant::now();
    let said = |what: &str| eprintln!("{:>6.1} s  {what}", began.elapsed().as_secs_f64());
    let cluster = Cluster::start().await;
    cluster.sql(&SectionText::metric_table("m")).await;
    cluster.sql("INSERT INTO m (external_id, value) SELECT g, g FROM generate_series(1, 100) g").await;
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    let address = own_address();
    let objects = rendered(&cluster, &sim.url(), &address, more);
    said("rendered");
    let (root, image) = image();
    let template = |kind: &str, part: &str| {
        let fits = |object: &&Value| {
            object["kind"] == kind && object["metadata"]["name"].as_str().is_some_and(|name| name.contains(part))
        };
        &objects.iter().find(fits).unwrap_or_else(|| panic!("no {kind} {part}"))["spec"]["template"]["spec"]
    };
    let pod = |spec| Pod { root: root.path(), image: &image, objects: &objects, spec };
    for job in ["-setup", "-check"] {
        let pod = pod(template("Job", job));
        let output = ended(pod.command(&pod.arguments())).await;
        let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{job}: {words}");
        said(job);
    }
    let spec = template("Deployment", "app");
    let log = Scratch::new("log");
    let log_file = log.path().join("stderr");
    let streamer = pod(spec);
    let mut streaming = streamer.command(&streamer.arguments());
    let mut child = streaming.stdout(Stdio::null()).stderr(std::fs::File::create(&log_file).unwrap()).spawn().unwrap();
    let path = spec["containers"][0]["readinessProbe"]["httpGet"]["path"].as_str().unwrap();
    let at = format!("{address}:{}", spec["containers"][0]["ports"][0]["containerPort"]);
    let ready = || async { (probe(&at, path).await == Some(200)).then_some(()) };
    let found =
        tokio::time::timeout(Duration::from_secs(30), eventually(Duration::from_secs(60), "ready", ready)).await;
    assert!(found.is_ok(), "{}", std::fs::read_to_string(&log_file).unwrap());
    said("ready");
    sim.wait_for(|stats| stats.metrics.items == 100, Duration::from_secs(30)).await.unwrap();
    cluster.sql("INSERT INTO m (external_id, value) SELECT g, g FROM generate_series(101, 150) g").await;
    sim.wait_for(|stats| stats.metrics.items == 150, Duration::from_secs(30)).await.unwrap();
    said("rows flow");
    // `kubectl exec`, as the notes of the chart have it.
    let look = ["--config", "/etc/pg2planhat/pg2planhat.yaml", "status"].map(str::to_owned);
    let shown = ended(streamer.command(&look)).await;
    assert!(shown.status.success() && String::from_utf8_lossy(&shown.stdout).contains("running"), "{shown:?}");
    let grace = spec["terminationGracePeriodSeconds"].as_u64().unwrap();
    let asked = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", std::fs::read_to_string(&log_file).unwrap());
    assert!(asked.elapsed() < Duration::from_secs(grace));
    said("drained");
}

mod needs_dist {
    use super::*;

    /// The block of docs/quickstart.md that installs, then the rest of the page with what it has installed.
    #[tokio::test]
    async fn walk_by_the_tarball_needs_psql() {
        let place = Scratch::new("tarball");
        succeed(Command::new("cp").arg(part("-linux.tar.gz")).arg(place.path()));
        let page = include_str!("../../docs/quickstart.md");
        let block = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
        let bin = place.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        // Nothing of this machine is changed: what goes to /usr/local/bin goes to a folder of the test.
        assert_eq!(block.matches("sudo ").count(), 1);
        let block = block.replace("sudo ", "").replace("/usr/local/bin", bin.to_str().unwrap());
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let said = succeed(Command::new("sh").args(["-euc", &block]).current_dir(place.path()).env("PATH", path));
        assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
        walk(&bin.join("pg2planhat")).await;
    }

    mod needs_root {
        use super::*;

        #[tokio::test]
        async fn walk_by_the_image_and_helms_manifests_needs_buildah_needs_helm() {
            walk_by_manifests("").await;
        }

        /// A user that the image does not know, in the group of root.
        #[tokio::test]
        async fn case_195_walk_on_openshift_needs_buildah_needs_helm() {
            walk_by_manifests("pod: { securityContext: { runAsUser: null, runAsGroup: null, fsGroup: null } }\n").await;
        }
    }

    #[test]
    fn nothing_but_what_is_released_is_in_the_folder_of_sums() {
        let sums = std::fs::read_to_string(folder().join("SHA256SUMS")).unwrap();
        for line in sums.lines() {
            let name = line.split_once("  ").unwrap().1;
            assert!(!name.contains('/') && folder().join(name).is_file(), "{name}");
        }
    }
}
