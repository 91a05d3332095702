//! Each part of a release, from the archive to delivered rows.

use crate::harness::port::Port;
use crate::harness::scratch::Scratch;
use crate::harness::{Cluster, ConfigText, SectionText, eventually, http};
use crate::markdown::Page;
use crate::release::{components, locked};
use pg2planhat::testing::sim::{Sim, SimOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn folder() -> PathBuf {
    let told = std::env::var_os("DIST").map(PathBuf::from);
    told.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dist"))
}

/// The one file whose name ends so.
pub fn part(ending: &str) -> PathBuf {
    let files = std::fs::read_dir(folder()).unwrap_or_else(|error| panic!("{error}: run `make dist`"));
    let names = files.map(|file| file.unwrap().path());
    let fits = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.contains(VERSION) && name.ends_with(ending)
    };
    let found: Vec<PathBuf> = names.filter(fits).collect();
    assert_eq!(found.len(), 1, "{ending}: {found:?}");
    found.into_iter().next().unwrap()
}

pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn unpacked(archive: &Path) -> Scratch {
    let scratch = Scratch::new("dist");
    succeed(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(scratch.path()));
    scratch
}

/// The unpacked tarball's own folder.
pub fn tarball() -> (Scratch, PathBuf) {
    let scratch = unpacked(&part("-linux.tar.gz"));
    let inside =
        scratch.path().join(part("-linux.tar.gz").file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz"));
    (scratch, inside)
}

/// The image's root with all of its layers, as it is in them, and its configuration.
pub fn image() -> (Scratch, Value) {
    let archive = unpacked(&part(".oci.tar"));
    let json = |file: &Path| serde_json::from_slice::<Value>(&std::fs::read(file).unwrap()).unwrap();
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        archive.path().join("blobs/sha256").join(digest)
    };
    let manifest = json(&blob(&json(&archive.path().join("index.json"))["manifests"][0]));
    let config = json(&blob(&manifest["config"]))["config"].take();
    let root = Scratch::new("image");
    for layer in manifest["layers"].as_array().unwrap() {
        succeed(Command::new("tar").arg("-xpf").arg(blob(layer)).arg("-C").arg(root.path()));
    }
    // A folder of a test is its owner's alone; a container's root is everybody's to enter.
    succeed(Command::new("chmod").arg("a+rx").arg(root.path()));
    (root, config)
}

/// The words of a list.
pub fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// Rows flow through a program that `command` starts with the configuration at `file`, which is written as it sees it.
async fn rows_flow(mut command: Command, file: &Path) {
    let cluster = Cluster::start().await;
    cluster.sql(&SectionText::metric_table("m")).await;
    cluster.sql("INSERT INTO m (external_id, value) SELECT g, g FROM generate_series(1, 100) g").await;
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    let admin = Port::reserve();
    let config = ConfigText::new(&cluster, &sim.url()).section(SectionText::metric("seats", "m"));
    let config = config.set("admin.listen", format!("127.0.0.1:{}", admin.number()));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, config.render()).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ready =
        || async { http::get(admin.number(), "/readyz").await.is_ok_and(|answer| answer.status == 200).then_some(()) };
    eventually(Duration::from_secs(30), "the installed program to be ready", ready).await;
    cluster.sql("INSERT INTO m (external_id, value) SELECT g, g FROM generate_series(101, 150) g").await;
    sim.wait_for(|stats| stats.metrics.items == 150, Duration::from_secs(30)).await.unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "drained");
}

mod needs_dist {
    use super::*;

    #[test]
    fn sums_are_those_of_every_part() {
        succeed(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder()));
        let sums = std::fs::read_to_string(folder().join("SHA256SUMS")).unwrap();
        for ending in ["-linux.tar.gz", ".deb", ".cdx.json", ".tgz"] {
            let name = part(ending).file_name().unwrap().to_str().unwrap().to_owned();
            assert!(sums.contains(&format!("  {name}\n")), "{name}");
        }
    }

    #[tokio::test]
    async fn the_tarballs_program_delivers_rows() {
        let (scratch, inside) = tarball();
        let file = scratch.path().join("pg2planhat.yaml");
        let mut command = Command::new(inside.join("pg2planhat"));
        command.arg("--config").arg(&file).arg("run").current_dir(scratch.path());
        rows_flow(command, &file).await;
    }

    #[test]
    fn the_tarball_has_completions_pages_licences_and_what_operators_need() {
        let (_scratch, inside) = tarball();
        let read =
            |file: &str| std::fs::read_to_string(inside.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        for shell in ["bash", "zsh", "fish"] {
            assert!(read(&format!("completions/pg2planhat.{shell}")).contains("quarantine"), "{shell}");
        }
        succeed(Command::new("bash").arg("-n").arg(inside.join("completions/pg2planhat.bash")));
        assert!(read("man/pg2planhat.1").contains(".TH pg2planhat 1"));
        assert!(read("man/pg2planhat-quarantine-list.1").contains("quarantine"));
        for file in [
            "README.md",
            "LICENSE",
            "CHANGELOG.md",
            "SECURITY.md",
            "deploy/RUNBOOK.md",
            "deploy/systemd/pg2planhat.service",
        ] {
            assert!(!read(file).is_empty(), "{file}");
        }
        // Nothing of the machine that built it.
        let home = std::env::var("HOME").unwrap();
        let program = std::fs::read(inside.join("pg2planhat")).unwrap();
        for place in [env!("CARGO_MANIFEST_DIR").to_owned(), format!("{home}/.cargo/registry")] {
            let found = program.windows(place.len()).any(|window| window == place.as_bytes());
            assert!(!found, "{place} is in the program");
        }
    }

    /// A document of the package leads to nothing that is in the repository alone.
    #[test]
    fn case_198_documents_lead_to_what_is_delivered_with_them() {
        let (_scratch, inside) = tarball();
        let package = Scratch::new("deb");
        succeed(Command::new("dpkg-deb").arg("--extract").arg(part(".deb")).arg(package.path()));
        for folder in [inside, package.path().join("usr/share/doc/pg2planhat")] {
            let listed = succeed(Command::new("find").arg(".").args(["-name", "*.md"]).current_dir(&folder));
            assert!(listed.lines().count() > 20, "{listed}");
            let mut broken = Vec::new();
            for file in listed.lines() {
                let page = Page::new(file, std::fs::read_to_string(folder.join(file)).unwrap());
                let local = page.links().into_iter().filter(|link| !link.target.contains("://"));
                for link in local {
                    let target = link.target.split('#').next().unwrap();
                    if !folder.join(file).parent().unwrap().join(target).exists() {
                        broken.push(format!("{file}:{}: {}", link.line, link.target));
                    }
                }
            }
            assert!(broken.is_empty(), "{}: {broken:#?}", folder.display());
        }
    }

    #[test]
    fn contents_are_the_locked_crates_and_each_has_its_licence() {
        let contents: Value = serde_json::from_slice(&std::fs::read(part(".cdx.json")).unwrap()).unwrap();
        assert_eq!(contents["bomFormat"], "CycloneDX");
        assert_eq!(contents["metadata"]["component"]["version"], VERSION);
        let (components, locked) = (components(&contents), locked());
        assert!(components.len() > 100);
        assert!(components.iter().all(|component| locked.contains(component)));
        for expected in ["tokio", "rustls", "ring", "postgres-protocol"] {
            assert!(components.iter().any(|(name, _)| name == expected), "{expected}");
        }
        assert!(!components.iter().any(|(name, _)| name == "proptest"), "a crate of the tests alone");
        let (_scratch, inside) = tarball();
        let licences = std::fs::read_to_string(inside.join("THIRD-PARTY-LICENSES.txt")).unwrap();
        for (name, version) in components {
            assert!(licences.contains(&format!("\n{name} {version} (")), "{name} {version}");
        }
    }

    #[test]
    fn the_chart_is_whole_needs_helm() {
        let helm = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/helm");
        let mut helm = Command::new(if helm.exists() { helm } else { "helm".into() });
        let values = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/pg2planhat/examples/many.yaml");
        let rendered = succeed(helm.args(["template", "rel"]).arg(part(".tgz")).arg("--values").arg(values));
        assert!(rendered.contains("kind: PrometheusRule") && rendered.contains("Pg2planhatAbsent"));
    }

    mod needs_root {
        use super::*;

        /// Nothing of the machine's is there: no library, no shell, no name service but /etc/hosts. A plug-in for names that is
        /// made for another glibc would end the process: this one does as soon as it is loaded.
        #[tokio::test]
        async fn case_196_the_program_is_static_and_looks_names_up_without_plug_ins() {
            let (scratch, inside) = tarball();
            let bare = scratch.path().join("bare");
            std::fs::create_dir_all(bare.join("etc")).unwrap();
            std::fs::copy(inside.join("pg2planhat"), bare.join("pg2planhat")).unwrap();
            std::fs::write(bare.join("etc/hosts"), "127.0.0.1 db.example\n").unwrap();
            std::fs::write(bare.join("etc/nsswitch.conf"), "hosts: trap files dns\npasswd: trap files\n").unwrap();
            std::fs::create_dir(bare.join("lib")).unwrap();
            let trap = scratch.path().join("trap.c");
            std::fs::write(&trap, "__attribute__((constructor)) static void loaded(void) { __builtin_trap(); }\n")
                .unwrap();
            let mut cc = Command::new("cc");
            succeed(
                cc.args(["-shared", "-fPIC", "-nostdlib"]).arg(&trap).arg("-o").arg(bare.join("lib/libnss_trap.so.2")),
            );
            let port = Port::reserve();
            let config = format!(
                "source: {{ host: db.example, port: {}, database: d, user: u, tls: disable }}\nplanhat: {{ tenant: t }}\nsections: \
                 [{{ name: a, kind: user_activity, table: t, key: id, fields: {{ email: e }} }}]\n",
                port.number()
            );
            std::fs::write(bare.join("c.yaml"), config).unwrap();
            let mut check = Command::new("chroot");
            let output = check.arg(&bare).args(["/pg2planhat", "--config", "/c.yaml", "check"]).output().unwrap();
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(said.contains("refused"), "the name was not looked up: {}: {said}", output.status);
        }

        #[tokio::test]
        async fn the_debian_package_installs_delivers_rows_and_goes() {
            let root = Scratch::new("debian");
            for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/log"] {
                std::fs::create_dir_all(root.path().join(folder)).unwrap();
            }
            std::fs::write(root.path().join("var/lib/dpkg/status"), "").unwrap();
            let dpkg = |arguments: &[&str]| {
                let mut dpkg = Command::new("dpkg");
                dpkg.arg(format!("--root={}", root.path().display())).arg("--force-script-chrootless");
                dpkg.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(arguments);
                dpkg
            };
            succeed(dpkg(&["--install"]).arg(part(".deb")));
            let status = std::fs::read_to_string(root.path().join("var/lib/dpkg/status")).unwrap();
            assert!(
                status.contains("Status: install ok installed") && status.contains(&format!("Version: {VERSION}-"))
            );
            for file in [
                "usr/lib/systemd/system/pg2planhat.service",
                "usr/share/man/man1/pg2planhat.1.gz",
                "etc/pg2planhat/secrets",
            ] {
                assert!(root.path().join(file).exists(), "{file}");
            }
            let unit = std::fs::read_to_string(root.path().join("usr/lib/systemd/system/pg2planhat.service")).unwrap();
            let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
            let (program, arguments) = start.split_once(' ').unwrap();
            let mut command = Command::new("chroot");
            command.arg(root.path()).arg(program).args(arguments.split(' '));
            rows_flow(command, &root.path().join("etc/pg2planhat/pg2planhat.yaml")).await;
            // What an administrator wrote stays, through an upgrade and a purge.
            let file = root.path().join("etc/pg2planhat/pg2planhat.yaml");
            let written = std::fs::read(&file).unwrap();
            succeed(dpkg(&["--install"]).arg(part(".deb")));
            assert_eq!(std::fs::read(&file).unwrap(), written);
            let secrets = std::fs::metadata(root.path().join("etc/pg2planhat/secrets")).unwrap();
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&secrets.permissions()) & 0o777, 0o700);
            succeed(&mut dpkg(&["--purge", "pg2planhat"]));
            assert!(!root.path().join("usr/bin/pg2planhat").exists());
            assert!(root.path().join("etc/pg2planhat/pg2planhat.yaml").exists());
        }

        /// It is loaded under the name that docs/quickstart.md uses, and is as large as the documents say.
        #[test]
        fn the_image_is_loaded_by_its_name_needs_buildah() {
            let storage = Scratch::new("storage");
            let buildah = |arguments: &[&str]| {
                let mut buildah = Command::new("buildah");
                buildah.arg("--root").arg(storage.path().join("root")).arg("--runroot").arg(storage.path().join("run"));
                succeed(buildah.args(["--storage-driver", "vfs"]).args(arguments))
            };
            buildah(&["pull", "--quiet", &format!("oci-archive:{}", part(".oci.tar").display())]);
            let name = buildah(&["images", "--format", "{{.Name}}:{{.Tag}}"]);
            let read = |file: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
            assert!(read("docs/quickstart.md").contains(&format!(" {}\n", name.trim())), "{name}");
            let image = std::fs::metadata(part(".oci.tar")).unwrap().len();
            let (_scratch, inside) = tarball();
            let program = std::fs::metadata(inside.join("pg2planhat")).unwrap().len();
            for (file, before, bytes) in [
                ("README.md", "About ", image),
                ("docs/operations.md", "binary, about ", image),
                ("deploy/Dockerfile", "image has ", image),
                ("deploy/Dockerfile", "binary has ", program),
            ] {
                let (text, megabytes) = (read(file), bytes as f64 / 1e6);
                let said = text.split(before).filter_map(|rest| rest.split_once(" MB")?.0.parse::<f64>().ok()).next();
                // What is read as "about": not every change of the program is one of the documents.
                let near = said.is_some_and(|said| (said / megabytes - 1.0).abs() < 0.05);
                assert!(near, "{file}: {before}{said:?} MB, and has {megabytes:.1} MB");
            }
        }

        #[tokio::test]
        async fn the_image_runs_as_nobody_and_delivers_rows_needs_buildah() {
            let (root, config) = image();
            assert_eq!(config["User"], "65532:65532");
            assert_eq!(config["Labels"]["org.opencontainers.image.version"], VERSION);
            let mut files = Vec::new();
            let listed = succeed(Command::new("find").arg(".").args(["-type", "f"]).current_dir(root.path()));
            files.extend(listed.lines().filter(|file| !file.starts_with("./usr/share/doc/")));
            files.sort_unstable();
            assert_eq!(
                files,
                ["./etc/group", "./etc/passwd", "./etc/ssl/certs/ca-certificates.crt", "./usr/local/bin/pg2planhat"]
            );
            let mut command = Command::new("chroot");
            command
                .arg("--userspec=65532:65532")
                .arg(root.path())
                .args(words(&config["Entrypoint"]))
                .args(words(&config["Cmd"]));
            rows_flow(command, &root.path().join("etc/pg2planhat/pg2planhat.yaml")).await;
        }
    }
}
