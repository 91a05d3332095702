//! A document's parts: its headings, its blocks of code, its links, its spans of code.

/// A document.
pub struct Page {
    pub file: String,
    pub text: String,
}

/// A fenced block.
pub struct Block {
    /// The line of its first line.
    pub line: usize,
    pub language: String,
    pub text: String,
}

/// A link to a file, or to a place within one.
pub struct Link {
    pub line: usize,
    pub target: String,
}

impl Page {
    pub fn new(file: &str, text: String) -> Page {
        Page { file: file.to_owned(), text }
    }

    /// The lines outside of blocks, numbered from 1.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(at, line)| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            (!fence && !inside).then_some((at + 1, line))
        })
    }

    pub fn blocks(&self) -> Vec<Block> {
        let mut found: Vec<Block> = Vec::new();
        let mut inside = false;
        for (at, line) in self.text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), inside) {
                (Some(language), false) => {
                    found.push(Block { line: at + 2, language: language.trim().to_owned(), text: String::new() });
                    inside = true;
                }
                (Some(_), true) => inside = false,
                (None, true) => {
                    let block = found.last_mut().unwrap();
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, false) => {}
            }
        }
        found
    }

    /// The places that a link may name, as forges and mdbook make them of headings.
    pub fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for (_, line) in self.prose() {
            let title = line.trim_start_matches('#');
            let level = line.len() - title.len();
            if !(1..=6).contains(&level) || !title.starts_with(' ') {
                continue;
            }
            let kept = title.trim().to_lowercase();
            let kept: String = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect();
            let anchor = kept.replace(' ', "-");
            let again = anchors.iter().filter(|other| **other == anchor).count();
            anchors.push(if again == 0 { anchor } else { format!("{anchor}-{again}") });
        }
        anchors
    }

    pub fn links(&self) -> Vec<Link> {
        let mut found = Vec::new();
        for (line, text) in self.prose() {
            let text = without_code(text);
            for (at, _) in text.match_indices("](") {
                let target = text[at + 2..].split(')').next().unwrap_or_default();
                found.push(Link { line, target: target.to_owned() });
            }
        }
        found
    }

    /// The spans of code in the prose, with their lines.
    pub fn spans(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (line, text) in self.prose() {
            found.extend(text.split('`').skip(1).step_by(2).map(|span| (line, span.replace("\\|", "|"))));
        }
        found
    }
}

/// The text with its spans of code emptied: what looks like a link in one is none.
fn without_code(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 0 { part } else { "" }).collect::<Vec<_>>().join("`")
}

#[test]
fn docs_parts_are_found() {
    let text = "# A `b.c` d\n\n[x](y.md#z) `[no](link)`\n```sh\nls # [no](x)\n```\n## A bc d\n`a \\| b`\n";
    let page = Page::new("a.md", text.to_owned());
    assert_eq!(page.anchors(), ["a-bc-d", "a-bc-d-1"]);
    assert_eq!(page.links().iter().map(|link| link.target.as_str()).collect::<Vec<_>>(), ["y.md#z"]);
    assert_eq!(page.spans(), [(1, "b.c".to_owned()), (3, "[no](link)".to_owned()), (8, "a | b".to_owned())]);
    let blocks = page.blocks();
    assert_eq!((blocks[0].line, blocks[0].language.as_str(), blocks[0].text.as_str()), (5, "sh", "ls # [no](x)\n"));
}
