//! The difference of two texts as a patch that `git apply` accepts. Pure.
//!
//! * In: two texts, and lines that no patch may show.
//! * Out: a unified diff.
//! * Never: a hidden line; more than the lines around a change.

/// A patch shows this many unchanged lines around a change.
const AROUND: usize = 3;
/// Lines are compared one by one where the differing part has at most this many on each side.
const COMPARED: usize = 1500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineOp {
    Same(usize, usize),
    Gone(usize),
    New(usize),
}

/// Returns the patch of the file `name`; an empty text where nothing differs. A line for which `hidden` is true ends
/// the lines around a change.
pub(crate) fn patch(name: &str, old: &str, new: &str, hidden: impl Fn(&str) -> bool) -> String {
    let (old_lines, new_lines): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let ops = compare(&old_lines, &new_lines);
    let mut text = String::new();
    let shown = |op: &LineOp| match op {
        LineOp::Same(at, _) => !hidden(old_lines[*at]),
        LineOp::Gone(_) | LineOp::New(_) => true,
    };
    let mut at = 0;
    while let Some(first) = (at..ops.len()).find(|at| !matches!(ops[*at], LineOp::Same(..))) {
        let mut begin = first;
        while begin > at && first - begin < AROUND && shown(&ops[begin - 1]) {
            begin -= 1;
        }
        let (mut end, mut last) = (first, first);
        while end < ops.len() && end - last <= 2 * AROUND && shown(&ops[end]) {
            if !matches!(ops[end], LineOp::Same(..)) {
                last = end;
            }
            end += 1;
        }
        let end = end.min(last + 1 + AROUND);
        hunk(&mut text, &ops[begin..end], &ops[..begin], &old_lines, &new_lines);
        at = end;
    }
    if text.is_empty() { text } else { format!("--- a/{name}\n+++ b/{name}\n{text}") }
}

fn hunk(text: &mut String, ops: &[LineOp], before: &[LineOp], old: &[&str], new: &[&str]) {
    let old_count = |ops: &[LineOp]| ops.iter().filter(|op| !matches!(op, LineOp::New(_))).count();
    let new_count = |ops: &[LineOp]| ops.iter().filter(|op| !matches!(op, LineOp::Gone(_))).count();
    // A hunk without lines on one side names the line before it.
    let start = |before: usize, count: usize| if count == 0 { before } else { before + 1 };
    let (gone, come) = (old_count(ops), new_count(ops));
    text.push_str(&format!(
        "@@ -{},{gone} +{},{come} @@\n",
        start(old_count(before), gone),
        start(new_count(before), come)
    ));
    for op in ops {
        let (sign, line) = match op {
            LineOp::Same(at, _) => (' ', old[*at]),
            LineOp::Gone(at) => ('-', old[*at]),
            LineOp::New(at) => ('+', new[*at]),
        };
        text.push(sign);
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
}

fn compare(old: &[&str], new: &[&str]) -> Vec<LineOp> {
    let head = old.iter().zip(new).take_while(|(one, other)| one == other).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(one, other)| one == other).count();
    let (mid_old, mid_new) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut ops: Vec<LineOp> = (0..head).map(|at| LineOp::Same(at, at)).collect();
    ops.extend(middle(mid_old, mid_new, head));
    ops.extend((0..tail).map(|at| LineOp::Same(old.len() - tail + at, new.len() - tail + at)));
    ops
}

/// Compares by the longest common subsequence. Where the parts are long, all old lines go and all new ones come.
fn middle(old: &[&str], new: &[&str], from: usize) -> Vec<LineOp> {
    if old.len() > COMPARED || new.len() > COMPARED {
        let gone = (0..old.len()).map(|at| LineOp::Gone(from + at));
        return gone.chain((0..new.len()).map(|at| LineOp::New(from + at))).collect();
    }
    let mut longest = vec![vec![0_u16; new.len() + 1]; old.len() + 1];
    for one in (0..old.len()).rev() {
        for other in (0..new.len()).rev() {
            longest[one][other] = if old[one] == new[other] {
                longest[one + 1][other + 1] + 1
            } else {
                longest[one + 1][other].max(longest[one][other + 1])
            };
        }
    }
    let (mut one, mut other, mut ops) = (0, 0, Vec::new());
    while one < old.len() || other < new.len() {
        if one < old.len() && other < new.len() && old[one] == new[other] {
            ops.push(LineOp::Same(from + one, from + other));
            (one, other) = (one + 1, other + 1);
        } else if other == new.len() || (one < old.len() && longest[one + 1][other] >= longest[one][other + 1]) {
            ops.push(LineOp::Gone(from + one));
            one += 1;
        } else {
            ops.push(LineOp::New(from + other));
            other += 1;
        }
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_change_is_shown_with_what_is_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n";
        let expected = "--- a/x\n+++ b/x\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n";
        assert_eq!(patch("x", old, new, |_| false), expected);
        assert_eq!(patch("x", old, old, |_| false), "");
        let hidden = patch("x", old, new, |line| line == "3\n" || line == "7\n");
        assert_eq!(hidden, "--- a/x\n+++ b/x\n@@ -4,3 +4,3 @@\n 4\n-5\n+five\n 6\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn it_is_applied_needs_git(old in proptest::collection::vec("[a-d]{0,2}", 0..14), new in proptest::collection::vec("[a-d]{0,2}", 0..14), ends in any::<bool>()) {
            let text = |lines: &[String]| {
                let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                if ends || lines.is_empty() { text } else { text.trim_end_matches('\n').to_owned() + "x" }
            };
            let (old, new) = (text(&old), text(&new));
            // An empty file is another matter for git.
            prop_assume!(old != new && !old.is_empty() && !new.is_empty());
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("x"), &old).unwrap();
            std::fs::write(folder.path().join("p"), patch("x", &old, &new, |_| false)).unwrap();
            let applied = std::process::Command::new("git").args(["apply", "--unidiff-zero", "p"]).current_dir(folder.path()).output().unwrap();
            prop_assert!(applied.status.success(), "{}\n{}", String::from_utf8_lossy(&applied.stderr), patch("x", &old, &new, |_| false));
            prop_assert_eq!(std::fs::read_to_string(folder.path().join("x")).unwrap(), new);
        }
    }
}
