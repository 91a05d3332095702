//! The image, compose and the systemd unit, as far as they can be judged without building them.

use crate::tools::{path, succeed, text, tool, yaml};
use std::path::Path;

#[test]
fn the_dockerfile_is_small_locked_and_not_root() {
    let dockerfile = text("deploy/Dockerfile");
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("${BASE_IMAGE}\n"), "a digest is a build argument: {last}");
    assert!(dockerfile.contains("\nARG BASE_IMAGE=gcr.io/distroless/static-debian12:nonroot\n"));
    assert!(last.contains("\nUSER 65532:65532\n"));
    assert!(last.contains("\nENTRYPOINT [\"/usr/local/bin/pg2planhat\"]\n"), "a shell would keep SIGTERM to itself");
    assert!(dockerfile.contains("cargo build --release --locked"));
    assert!(!dockerfile.contains("\nADD ") && !dockerfile.contains("curl"));
}

#[test]
fn the_dockerfile_is_without_a_fault_needs_hadolint() {
    succeed(tool("hadolint").arg(path("deploy/Dockerfile")));
}

#[test]
fn what_the_build_copies_is_there_and_is_not_ignored() {
    let ignore = text("deploy/Dockerfile.dockerignore");
    let dockerfile = text("deploy/Dockerfile");
    let copies = dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from"));
    for source in copies.flat_map(|line| line.split(' ').skip(1)).filter(|word| !word.starts_with('.')) {
        assert!(path(source).exists(), "{source}");
        assert!(ignore.contains(&format!("!{source}\n")), "{source} is ignored");
    }
    // A file that the sources include from elsewhere would be missing in the build.
    for_each_source(&path("src"), &mut |file, source| {
        for included in source.split("include_str!(").skip(1).map(|rest| rest.split('"').nth(1).unwrap_or_default()) {
            let target = file.parent().unwrap().join(included).canonicalize().unwrap_or_default();
            assert!(
                target.starts_with(path("src")),
                "{} includes {included}: copy it in the Dockerfile",
                file.display()
            );
        }
    });
}

fn for_each_source(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            for_each_source(&entry, see);
        } else {
            // Tests are not built into the image.
            let is_test = entry.file_stem().is_some_and(|stem| stem == "tests" || stem == "fixture");
            if !is_test {
                let source = std::fs::read_to_string(&entry).unwrap();
                see(&entry, source.split("#[cfg(test)]\nmod tests {").next().unwrap());
            }
        }
    }
}

#[test]
fn compose_mounts_what_exists_and_opens_ports_on_this_machine_only() {
    let compose = text("deploy/compose.yaml");
    let plain = compose.replace("&image ", "").replace("*image", "x").replace("&build ", "").replace("*build", "{}");
    let compose = yaml(&plain).remove(0);
    for (name, service) in compose["services"].as_object().unwrap() {
        for mount in service["volumes"].as_array().into_iter().flatten() {
            let source = mount.as_str().unwrap().split(':').next().unwrap();
            assert!(path("deploy").join(source).exists(), "{name}: {source}");
            assert!(mount.as_str().unwrap().ends_with(":ro"), "{name}: {mount}");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn the_systemd_unit_runs_what_the_package_installs() {
    let unit = text("deploy/systemd/pg2planhat.service");
    assert!(unit.contains("\nExecStart=/usr/bin/pg2planhat --config /etc/pg2planhat/pg2planhat.yaml run --stay\n"));
    assert!(unit.contains("\nTimeoutStopSec=30s\n") && unit.contains("\nRestartPreventExitStatus=64 75\n"));
}

#[test]
fn the_systemd_unit_is_accepted_needs_systemd_analyze() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pg2planhat.service");
    // It insists that the program be there.
    let unit = text("deploy/systemd/pg2planhat.service").replace("/usr/bin/pg2planhat ", "/bin/true ");
    std::fs::write(&file, unit).unwrap();
    succeed(tool("systemd-analyze").args(["verify", "--man=no"]).arg(&file));
    // In tenths: 1.2 of 10 when it was written.
    succeed(tool("systemd-analyze").args(["security", "--offline=true", "--threshold=15"]).arg(&file));
}
