//! Which file takes something from which: read off `use` and inline paths, through the doors (`pub use` in a `mod.rs`).

use std::collections::{BTreeMap, BTreeSet};

use super::{Offence, Source};

/// A path of names, as `crate::a::b::C` has them behind `crate`.
type Names = Vec<String>;

/// What one file says of others.
struct File<'a> {
    source: &'a Source,
    /// Its module's path: empty for the roof.
    module: Names,
    taken: Vec<Names>,
    /// What its door hands on: the name and where it comes from.
    doors: BTreeMap<String, Names>,
}

/// The circles of files: each is one offence, at its first file, that names them all.
pub(crate) fn circles(sources: &[Source]) -> Vec<Offence> {
    let files: Vec<File> = sources.iter().filter_map(read).collect();
    let by_module: BTreeMap<&Names, usize> = files.iter().enumerate().map(|(at, file)| (&file.module, at)).collect();
    let edges: Vec<BTreeSet<usize>> = files
        .iter()
        .enumerate()
        .map(|(own, file)| {
            let reached = file.taken.iter().filter_map(|names| resolve(&files, &by_module, names, 0));
            reached.filter(|other| *other != own).collect()
        })
        .collect();
    let circles = components(&edges).into_iter().filter(|circle| circle.len() > 1);
    circles
        .map(|circle| {
            let mut names: Vec<&str> = circle.iter().map(|at| files[*at].source.path.as_str()).collect();
            names.sort_unstable();
            Offence { file: names[0].to_owned(), line: 1, what: format!("a circle of files: {}", names.join(", ")) }
        })
        .collect()
}

/// `None` for the roof, which nobody imports.
fn read(source: &Source) -> Option<File<'_>> {
    let inner = source.path.strip_prefix("src/")?.trim_end_matches(".rs");
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    if ["main", "lib", "testing"].contains(&inner) {
        return None;
    }
    let module: Names = inner.split('/').map(str::to_owned).collect();
    let code: String = source.code().map(|(_, line)| format!("{line}\n")).collect();
    let mut file = File { source, module, taken: Vec::new(), doors: BTreeMap::new() };
    let mut rest = String::new();
    let mut statements = code.as_str();
    while let Some(at) = next_use(statements) {
        let (before, from) = statements.split_at(at);
        rest.push_str(before);
        let end = from.find(';').unwrap_or(from.len() - 1);
        let door = from.starts_with("pub");
        let tree = from[..end].split_once("use ").map(|(_, tree)| tree).unwrap_or_default();
        for names in leaves(tree) {
            match names.split_first() {
                Some((first, names)) if first == "crate" && door => {
                    file.doors.insert(names.last().cloned().unwrap_or_default(), names.to_vec());
                }
                Some((first, names)) if first == "crate" => file.taken.push(names.to_vec()),
                Some(_) | None => {}
            }
        }
        statements = &from[end + 1..];
    }
    rest.push_str(statements);
    file.taken.extend(inline(&rest, "crate"));
    for child in children(&code) {
        let own = file.module.clone();
        file.taken
            .extend(inline(&rest, &child).into_iter().map(|names| [own.clone(), vec![child.clone()], names].concat()));
    }
    Some(file)
}

/// Where the next `use` statement begins, its visibility included; only at the start of a line.
fn next_use(code: &str) -> Option<usize> {
    let mut at = 0;
    for line in code.split_inclusive('\n') {
        let text = line.trim_start();
        let use_at = at + line.len() - text.len();
        if text.starts_with("use ")
            || (text.starts_with("pub") && text.contains(" use ") && !text.contains('{'))
            || (text.starts_with("pub") && text.split('{').next().is_some_and(|head| head.contains(" use ")))
        {
            return Some(use_at);
        }
        at += line.len();
    }
    None
}

/// The leaves of a tree of a `use`: `a::{b, c::{d, self}}` is `a::b`, `a::c::d`, `a::c`.
fn leaves(tree: &str) -> Vec<Names> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        let names =
            path.split("::").map(|name| name.trim().to_owned()).filter(|name| name != "self" && !name.is_empty());
        return vec![names.collect()];
    };
    let head: Names =
        tree[..open].split("::").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let mut found = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    found.extend(leaves(&inner[start..at]).into_iter().map(|names| [head.clone(), names].concat()));
                }
                start = (at + 1).min(inner.len());
            }
            _ => {}
        }
    }
    found
}

/// The paths that stand in the code behind `root::`.
fn inline(code: &str, root: &str) -> Vec<Names> {
    let begin = format!("{root}::");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&begin) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:.".contains(c)) {
            continue;
        }
        let path: String =
            code[at + begin.len()..].chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
        found.push(path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect());
    }
    found
}

/// The modules that a file declares.
fn children(code: &str) -> Vec<String> {
    let declared = code.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';'));
    declared.map(|name| name.trim().to_owned()).collect()
}

/// The file that a path ends in.
fn resolve(files: &[File], by_module: &BTreeMap<&Names, usize>, names: &[String], steps: usize) -> Option<usize> {
    let (length, at) = (1..=names.len()).rev().find_map(|n| Some((n, *by_module.get(&names[..n].to_vec())?)))?;
    let handed_on = names.get(length).and_then(|name| files[at].doors.get(name)).filter(|_| steps < 8);
    match handed_on {
        Some(from) => resolve(files, by_module, from, steps + 1).or(Some(at)),
        None => Some(at),
    }
}

/// Tarjan's strongly connected components.
fn components(edges: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    struct Walk<'a> {
        edges: &'a [BTreeSet<usize>],
        number: Vec<Option<usize>>,
        low: Vec<usize>,
        stack: Vec<usize>,
        next: usize,
        found: Vec<Vec<usize>>,
    }
    fn visit(walk: &mut Walk, node: usize) {
        (walk.number[node], walk.low[node]) = (Some(walk.next), walk.next);
        walk.next += 1;
        walk.stack.push(node);
        for other in walk.edges[node].clone() {
            match walk.number[other] {
                None => {
                    visit(walk, other);
                    walk.low[node] = walk.low[node].min(walk.low[other]);
                }
                Some(number) if walk.stack.contains(&other) => walk.low[node] = walk.low[node].min(number),
                Some(_) => {}
            }
        }
        if walk.number[node] == Some(walk.low[node]) {
            let from = walk.stack.iter().rposition(|other| *other == node).unwrap_or(0);
            let circle = walk.stack.split_off(from);
            walk.found.push(circle);
        }
    }
    let count = edges.len();
    let mut walk =
        Walk { edges, number: vec![None; count], low: vec![0; count], stack: Vec::new(), next: 0, found: Vec::new() };
    for node in 0..count {
        if walk.number[node].is_none() {
            visit(&mut walk, node);
        }
    }
    walk.found
}
