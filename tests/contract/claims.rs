//! Which rows tests say they prove: `// spec: TRANS-21` in the comment directly above a test.

use std::fs;
use std::path::Path;

use crate::{files, root, shown};

/// The `// spec:` lines above one item.
pub(crate) struct Claim {
    /// File and line.
    pub(crate) place: String,
    pub(crate) ids: Vec<String>,
    /// Why it does not count.
    pub(crate) problem: Option<&'static str>,
}

/// Those of all Rust files.
pub(crate) fn all() -> Vec<Claim> {
    let mut files = files();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.iter().flat_map(|file| of_file(file)).collect()
}

fn of_file(file: &Path) -> Vec<Claim> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let lines: Vec<_> = text.lines().collect();
    let inside = file.strip_prefix(root()).unwrap_or(file);
    let in_tests = inside.parent().is_some_and(|folder| folder.iter().any(|part| part == "tests"));
    let mut claims = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let above = block_at(&lines, index);
        let item = lines.get(index + above).copied().unwrap_or_default();
        let block = &lines[index..index + above];
        let said: Vec<_> = (0..above).filter(|&line| rows_of(block[line]).is_some()).collect();
        if let Some(first) = said.first() {
            let rows = said.iter().filter_map(|&line| rows_of(block[line]));
            let ids = rows.flat_map(|rows| rows.split([',', ' '])).filter(|id| !id.is_empty());
            let ids: Vec<_> = ids.map(str::to_owned).collect();
            let problem = problem(&ids, is_test(block, item, in_tests));
            let place = format!("{}:{}", shown(file), index + first + 1);
            claims.push(Claim { place, ids, problem });
        }
        index += above + 1;
    }
    claims
}

/// How many lines of comments and attributes begin at `first`.
fn block_at(lines: &[&str], first: usize) -> usize {
    let mut depth = 0; // Of brackets, as an attribute may have several lines.
    let rest = lines[first..].iter();
    rest.take_while(|line| {
        let line = line.trim_start();
        let goes_on = depth > 0 || line.starts_with("//") || line.starts_with("#[");
        if !line.starts_with("//") && goes_on {
            depth += line.matches('[').count();
            depth = depth.saturating_sub(line.matches(']').count());
        }
        goes_on
    })
    .count()
}

/// What follows `// spec:`.
fn rows_of(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("//")?.trim_start().strip_prefix("spec:")
}

fn problem(ids: &[String], above_test: bool) -> Option<&'static str> {
    if !above_test {
        Some("it does not stand directly above a test")
    } else if ids.len() > MOST {
        Some("it names more than four rows")
    } else {
        None
    }
}

/// A function with `#[test]`. The tests of a package of tests may also be functions and macros that a table lists.
fn is_test(block: &[&str], item: &str, in_tests: bool) -> bool {
    let is_function = item.split_whitespace().take(5).any(|word| word == "fn");
    let is_macro = item.split_once('!').is_some_and(|(name, _)| {
        name.trim_start().chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    });
    let has_attribute = block.iter().any(|line| line.trim_start().starts_with("#[test]"));
    (has_attribute && is_function) || (in_tests && (is_function || is_macro))
}

/// A claim for more says too little about any of them.
const MOST: usize = 4;
