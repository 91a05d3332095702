//! Finding and running other people's tools, and reading YAML.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::bound::bound_this_test;

/// A path within the repository.
pub fn path(relative: &str) -> PathBuf {
    bound_this_test();
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// A file of the repository.
pub fn text(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// A command of a tool, from `.ci/tools`'s folder or the PATH. The test's name has to say that it needs it, so that it can be
/// left out where the tool cannot be had: a test that has run without its tool would count as passed.
pub fn tool(name: &str) -> Command {
    bound_this_test();
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    let needs = format!("needs_{}", name.replace('-', "_"));
    assert!(test.contains(&needs), "{test} uses {name}: have `{needs}` in its name, as the name of a module around it");
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let own = [path("target/tools/bin")];
    let found =
        own.into_iter().chain(std::env::split_paths(&folders)).map(|dir| dir.join(name)).find(|file| file.is_file());
    Command::new(found.unwrap_or_else(|| panic!("{name} is missing: run `make test`, or `bash .ci/tools` once")))
}

/// Runs to the end and gives what it printed; panics with both outputs where it fails.
pub fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// All documents of a YAML text, as JSON.
pub fn yaml(text: &str) -> Vec<Value> {
    Yaml::load_from_str(text).unwrap().iter().map(json).collect()
}

fn json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Boolean(value)) => Value::from(*value),
        Yaml::Value(Scalar::Integer(value)) => Value::from(*value),
        Yaml::Value(Scalar::FloatingPoint(value)) => Value::from(value.into_inner()),
        Yaml::Value(Scalar::String(value)) => Value::from(value.as_ref()),
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Sequence(items) => items.iter().map(json).collect(),
        Yaml::Mapping(map) => {
            let pairs = map.iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), json(value)));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
        Yaml::Representation(..) | Yaml::Tagged(..) | Yaml::Alias(_) | Yaml::BadValue => {
            panic!("not expected: {yaml:?}")
        }
    }
}

/// All alerts of the rules: name, and the whole rule.
pub fn alerts() -> Vec<(String, Value)> {
    let rules = yaml(&text("deploy/prometheus/rules.yaml")).remove(0);
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules.filter_map(|rule| Some((rule["alert"].as_str()?.to_owned(), rule.clone()))).collect()
}
