//! The contract: `docs/behaviour.md` says what ringloop does, and tests prove it.
//!
//! Each row of the document has an id. A test names the rows that it proves in the comment directly above it, four at most:
//!
//! ```text
//! // spec: TRANS-21, FLOW-05
//! #[test]
//! fn pause_reading_is_silent_at_once() {
//! ```
//!
//! What an area asks for is said by its line in the document's table of areas. `-- --nocapture` prints how far each is.

mod claims;
mod public_docs;
mod public_items;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::claims::Claim;
use crate::rows::{Contract, Row, State, ids_in};

#[test]
fn every_row_stands_once_under_a_known_area() {
    let contract = Contract::read();
    let mut seen = BTreeSet::new();
    let twice: Vec<_> = contract.rows.iter().filter(|row| !seen.insert(&row.id)).collect();
    assert!(twice.is_empty(), "rows that stand twice in docs/behaviour.md: {twice:?}");
    let areas: BTreeSet<_> = contract.areas.iter().map(|area| area.name.as_str()).collect();
    let of_rows: BTreeSet<_> = contract.rows.iter().map(Row::area).collect();
    assert_eq!(areas, of_rows, "the areas of the table, and those of the rows");
}

#[test]
fn every_row_that_is_named_anywhere_exists() {
    let contract = Contract::read();
    let mut unknown = Vec::new();
    for file in files() {
        let Ok(text) = fs::read_to_string(&file) else { continue }; // No text.
        for (number, line) in text.lines().enumerate() {
            for id in ids_in(line).filter(|id| contract.has_area_of(id) && !contract.has(id)) {
                unknown.push(format!("{}:{}: {id}", shown(&file), number + 1));
            }
        }
    }
    for claim in claims::all() {
        // The others have been seen above.
        for id in claim.ids.iter().filter(|id| !contract.has_area_of(id)) {
            unknown.push(format!("{}: {id}", claim.place));
        }
    }
    assert!(unknown.is_empty(), "docs/behaviour.md has no such row:\n{}", unknown.join("\n"));
}

#[test]
fn every_claim_stands_above_a_test_and_names_four_rows_at_most() {
    let wrong: Vec<_> = claims::all()
        .iter()
        .filter_map(|claim| Some(format!("{}: {}", claim.place, claim.problem?)))
        .collect();
    assert!(wrong.is_empty(), "claims that cannot count:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_that_must_be_proved_is_named_by_a_test_or_excused() {
    let contract = Contract::read();
    let named = named(&claims::all());
    println!("{}", table(&contract, &named));
    let missing: Vec<_> = contract
        .rows
        .iter()
        .filter(|row| contract.must_be_proved(row))
        .filter(|row| !named.contains(&row.id) && !contract.excuses.contains_key(&row.id))
        .map(|row| format!("{}: {}", row.id, row.rule))
        .collect();
    assert!(
        missing.is_empty(),
        "no test names these rows, and tests/exempt.md does not excuse them:\n{}",
        missing.join("\n")
    );
}

/// Who reads the documentation of an item has no docs/behaviour.md beside it.
#[test]
fn the_documentation_of_public_items_needs_no_ids() {
    let ids = public_docs::ids(&Contract::read());
    assert!(ids.is_empty(), "say it in words:\n{}", ids.join("\n"));
}

#[test]
fn an_example_calls_every_public_item() {
    let items = public_items::all();
    let missing = items.iter().filter(|item| !item.has_example(&items)).map(ToString::to_string);
    let missing: Vec<_> = missing.collect();
    assert!(
        missing.is_empty(),
        "no example on its page of the documentation calls:\n{}",
        missing.join("\n")
    );
}

#[test]
fn the_documentation_of_what_is_awaited_has_a_section_on_cancel_safety() {
    let items = public_items::all();
    let missing: Vec<_> = items
        .iter()
        .filter(|item| item.is_awaited && !item.has_cancel_safety(&items))
        .map(ToString::to_string)
        .collect();
    assert!(missing.is_empty(), "`# Cancel safety` is missing from:\n{}", missing.join("\n"));
}

/// So that an excuse goes when its reason does.
#[test]
fn every_excuse_is_needed() {
    let contract = Contract::read();
    let named = named(&claims::all());
    let mut wrong = Vec::new();
    for (id, reason) in &contract.excuses {
        if !contract.has(id) {
            wrong.push(format!("{id} is no row of docs/behaviour.md"));
        }
        if named.contains(id) {
            wrong.push(format!("a test names {id}: its excuse can go"));
        }
        if reason.is_empty() {
            wrong.push(format!("{id} is excused without a reason"));
        }
        let area =
            reason.strip_prefix("comes with ").and_then(|rest| rest.split([' ', '.']).next());
        if area.is_some_and(|area| contract.state_of(area) != Some(State::Later)) {
            wrong
                .push(format!("{id} was to come with an area that is no longer to come: {reason}"));
        }
    }
    assert!(wrong.is_empty(), "tests/exempt.md:\n{}", wrong.join("\n"));
}

/// docs/kernel.md names a test as `queues::an_overflow_…`: by its file or folder, and the beginning of its name.
#[test]
fn every_test_that_the_facts_of_the_kernel_name_exists() {
    let document = fs::read_to_string(root().join("docs/kernel.md")).expect("docs/kernel.md");
    let tests = root().join("crates/ringloop-driver/tests/driver");
    let files = files();
    let mut missing = Vec::new();
    for named in document.split('`').filter(|text| text.contains("::")) {
        let (module, test) = named.split_once("::").expect("it was asked for");
        let parts: Vec<_> = test.split(['…', '*']).collect();
        let inside = |file: &&PathBuf| {
            file.with_extension("") == tests.join(module) || file.starts_with(tests.join(module))
        };
        let text = files.iter().filter(inside).filter_map(|file| fs::read_to_string(file).ok());
        let exists = text.collect::<String>().split("fn ").skip(1).any(|rest| {
            let name = rest.split('(').next().unwrap_or_default();
            name.starts_with(parts[0]) && parts.iter().all(|part| name.contains(part))
        });
        if !exists {
            missing.push(named);
        }
    }
    assert!(missing.is_empty(), "docs/kernel.md names tests that are not there: {missing:?}");
}

fn named(claims: &[Claim]) -> BTreeSet<String> {
    let counted = claims.iter().filter(|claim| claim.problem.is_none());
    counted.flat_map(|claim| claim.ids.iter().cloned()).collect()
}

/// Per area and mark: rows that a test names, of those that are not excused.
fn table(contract: &Contract, named: &BTreeSet<String>) -> String {
    let marks = ["SEED", "NEAR", "EXT", ""];
    let mut lines = vec![format!(
        "{:<10}{:>10}{:>10}{:>10}{:>10}{:>9}  state",
        "area", "SEED", "NEAR", "EXT", "others", "excused"
    )];
    for area in &contract.areas {
        let mut counts = BTreeMap::from(marks.map(|mark| (mark, (0, 0))));
        let mut excused = 0;
        for row in contract.rows.iter().filter(|row| row.area() == area.name) {
            if contract.excuses.contains_key(&row.id) {
                excused += 1;
                continue;
            }
            let (hits, all) = counts.entry(row.mark.as_str()).or_default();
            *hits += usize::from(named.contains(&row.id));
            *all += 1;
        }
        let cells: String = marks
            .iter()
            .map(|mark| match counts[mark] {
                (_, 0) => format!("{:>10}", ""),
                (hits, all) => format!("{:>10}", format!("{hits}/{all}")),
            })
            .collect();
        let excused = if excused == 0 { String::new() } else { excused.to_string() };
        lines.push(format!("{:<10}{cells}{excused:>9}  {:?}", area.name, area.state));
    }
    lines.join("\n")
}

/// Every file of the repository but those that a build makes.
fn files() -> Vec<PathBuf> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("its entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if ["target", ".git", "Cargo.lock"].contains(&name) {
                continue;
            }
            if path.is_dir() {
                walk(&path, files);
            } else {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root(), &mut files);
    files.sort();
    files
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_path_buf()
}
