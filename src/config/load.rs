//! The file → a [`Config`], or all its errors.
//!
//! * In: a path, or text.
//! * Out: a configuration that is whole and consistent.
//! * Never: the first error alone.

use crate::config::config_error::ConfigErrors;

use std::collections::HashMap;
use std::path::Path;

use crate::config::config_error::{ErrorCollector, Mark, shown};
use crate::config::decoder::{DecodeContext, Map};
use crate::config::keys::ROOT;
use crate::config::yaml::{Node, NodeValue, parse as parse_yaml, place_of};
use crate::config::{
    Config, Secret, Section, Source, bounded, console_keys, cross_checks, endpoints, names, scalar, section,
};
use crate::model::Fault;

/// The largest file that is read. The parser's time grows with it, and no configuration comes near.
const LARGEST: usize = 1 << 20;

const EXAMPLE: &str = "begin with deploy/pg2planhat.example.yaml, or with `pg2planhat discover`";

/// Reads the configuration from a file.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigErrors> {
    read(path, parse)
}

/// Reads `source` alone, so that a file which has no sections yet is of use. Without a file, or without `source` in it,
/// all is default, and libpq's environment variables say the rest.
pub fn load_source(path: &Path) -> Result<Source, ConfigErrors> {
    if !path.exists() {
        return parse_source("{}", "");
    }
    read(path, parse_source)
}

fn parse_source(text: &str, origin: &str) -> Result<Source, ConfigErrors> {
    let context = DecodeContext { report: ErrorCollector::default(), reveal: &Secret::reveal };
    let empty = Node { at: Mark::default(), value: NodeValue::Map(Vec::new()) };
    let root = match parse_yaml(text) {
        Ok(root) => root.unwrap_or(empty),
        Err((at, complaint)) => {
            context.report.complain(at, complaint);
            return Err(finish(context.report, origin));
        }
    };
    let source = endpoints::source(&Map::open(&root, ROOT, String::new(), &context).object("source"));
    match context.report.finish(origin) {
        None => Ok(source),
        Some(errors) => Err(errors),
    }
}

fn read<T>(path: &Path, parse: impl Fn(&str, &str) -> Result<T, ConfigErrors>) -> Result<T, ConfigErrors> {
    let origin = path.display().to_string();
    let whole = |message: String, remedy: &str| {
        let report = ErrorCollector::default();
        report.add(Mark::default(), message, remedy);
        Err(finish(report, &origin))
    };
    let bytes = match bounded::read(path, LARGEST) {
        Ok(bytes) => bytes,
        Err(error) => {
            return whole(
                format!("the configuration cannot be read: {error}"),
                "name the file with --config FILE; it has at most 1 MiB",
            );
        }
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &origin),
        Err(error) => {
            let before = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let report = ErrorCollector::default();
            report.add(place_of(before), "this is not UTF-8", "save the file as UTF-8");
            Err(finish(report, &origin))
        }
    }
}

/// Reads the configuration from text; `origin` names it in errors.
pub fn parse(text: &str, origin: &str) -> Result<Config, ConfigErrors> {
    parse_with(text, origin, &Secret::reveal)
}

/// As [`parse`], with another way to read secrets.
pub(crate) fn parse_with(
    text: &str,
    origin: &str,
    reveal: &dyn Fn(&Secret) -> Result<String, Fault>,
) -> Result<Config, ConfigErrors> {
    let context = DecodeContext { report: ErrorCollector::default(), reveal };
    if text.len() > LARGEST {
        context.report.add(Mark::default(), format!("the configuration is larger than {LARGEST} bytes"), EXAMPLE);
        return Err(finish(context.report, origin));
    }
    let config = match parse_yaml(text) {
        Ok(Some(root)) => decode(&root, &context),
        Ok(None) => {
            context.report.add(Mark { line: 1, column: 1 }, "the configuration is empty", EXAMPLE);
            return Err(finish(context.report, origin));
        }
        Err((at, complaint)) => {
            context.report.complain(at, complaint);
            return Err(finish(context.report, origin));
        }
    };
    match context.report.finish(origin) {
        None => Ok(config),
        Some(errors) => Err(errors),
    }
}

fn finish(report: ErrorCollector, origin: &str) -> ConfigErrors {
    report.finish(origin).unwrap_or(ConfigErrors(Vec::new()))
}

fn decode(root: &Node, context: &DecodeContext<'_>) -> Config {
    let map = Map::open(root, ROOT, String::new(), context);
    let source = endpoints::source(&map.object("source"));
    let sections = sections(&map, &source.schema);
    let memory = map.read_marked("memory", scalar::size);
    let state = endpoints::state(&map.object("state"));
    cross_checks::memory(&map, memory, &sections);
    let (of_admin, of_console) = (map.object("admin"), map.object("console"));
    let (admin, console) = (endpoints::admin(&of_admin), console_keys::console(&of_console));
    cross_checks::listeners(&of_console, &admin.listen, console.listen.as_deref());
    Config {
        planhat: endpoints::planhat(&map.object("planhat")),
        state,
        audit: endpoints::audit(&map.object("audit")),
        admin,
        console,
        memory: memory.map(|(_, bytes)| bytes).unwrap_or_default(),
        shutdown_grace: map.read("shutdown_grace", scalar::duration).unwrap_or_default(),
        sections,
        source,
    }
}

fn sections(map: &Map<'_>, schema: &str) -> Vec<Section> {
    const REMEDY: &str = "add one: a name, kind, table, key and fields; `pg2planhat discover TABLE` writes it";
    let Some(node) = map.given("sections") else {
        map.value("sections");
        return Vec::new();
    };
    let NodeValue::List(items) = &node.value else {
        map.report(node.at, format!("sections must be a list, not {}", node.describe()), REMEDY);
        return Vec::new();
    };
    if items.is_empty() {
        map.report(node.at, "sections has no section", REMEDY);
    }
    let mut first_lines: HashMap<&str, usize> = HashMap::new();
    let mut sections = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let name = name_of(item);
        let place = match name {
            Some((_, name)) if names::section(name).is_ok() => format!("section \"{name}\""),
            Some(_) | None => format!("section {}", index + 1),
        };
        let inner = Map::open(item, crate::config::keys::SECTION, place, map.context());
        sections.push(section::section(&inner, schema));
        let Some((at, name)) = name else { continue };
        match first_lines.get(name) {
            Some(line) => {
                let message = format!("a second section with the name {}; the first is on line {line}", shown(name));
                map.report(at, message, "give each section a name of its own: its state is kept by it");
            }
            None => {
                first_lines.insert(name, at.line);
            }
        }
    }
    sections
}

fn name_of(item: &Node) -> Option<(Mark, &str)> {
    let NodeValue::Map(entries) = &item.value else { return None };
    let (_, node) = entries.iter().find(|(name, _)| name.text == "name")?;
    match &node.value {
        NodeValue::Scalar(text, _) if !node.is_null() => Some((node.at, text)),
        NodeValue::Scalar(..) | NodeValue::List(_) | NodeValue::Map(_) => None,
    }
}
