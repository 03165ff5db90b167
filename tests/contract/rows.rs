//! What `docs/behaviour.md` asks for, and what `tests/exempt.md` excuses.

use std::collections::BTreeMap;
use std::fs;

use crate::root;

/// Both documents.
pub(crate) struct Contract {
    pub(crate) areas: Vec<Area>,
    pub(crate) rows: Vec<Row>,
    /// The reason for each row that no test names.
    pub(crate) excuses: BTreeMap<String, String>,
}

/// One line of the table of areas.
pub(crate) struct Area {
    pub(crate) name: String,
    pub(crate) state: State,
}

/// How much of an area must be proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Every row.
    Done,
    /// Every row that is marked SEED.
    Begun,
    /// None yet.
    Later,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) rule: String,
    /// SEED, NEAR or EXT; nothing where an area's rows have no mark.
    pub(crate) mark: String,
}

impl Row {
    pub(crate) fn area(&self) -> &str {
        area_of(&self.id)
    }
}

impl Contract {
    pub(crate) fn read() -> Self {
        let mut areas = Vec::new();
        let mut rows = Vec::new();
        for cells in cells_of("docs/behaviour.md") {
            if ids_in(&cells[0]).eq([cells[0].as_str()]) {
                rows.push(Row { id: cells[0].clone(), rule: cells[1].clone(), mark: mark(&cells) });
            } else if let Some(state) = state(&cells) {
                areas.push(Area { name: cells[0].clone(), state });
            }
        }
        let excuses = cells_of("tests/exempt.md")
            .into_iter()
            .filter(|cells| ids_in(&cells[0]).eq([cells[0].as_str()]))
            .map(|cells| (cells[0].clone(), cells[1].clone()))
            .collect();
        assert!(!areas.is_empty() && !rows.is_empty(), "docs/behaviour.md has its two tables");
        Self { areas, rows, excuses }
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.rows.iter().any(|row| row.id == id)
    }

    /// Whether `id` looks like the id of a row, and not like a licence or a character set.
    pub(crate) fn has_area_of(&self, id: &str) -> bool {
        self.state_of(area_of(id)).is_some()
    }

    pub(crate) fn state_of(&self, area: &str) -> Option<State> {
        self.areas.iter().find(|known| known.name == area).map(|known| known.state)
    }

    pub(crate) fn must_be_proved(&self, row: &Row) -> bool {
        match self.state_of(row.area()) {
            Some(State::Done) => true,
            Some(State::Begun) => row.mark == "SEED",
            Some(State::Later) | None => false,
        }
    }
}

/// Whatever in `text` has the form of a row's id: capitals, a hyphen, a number, perhaps a letter.
pub(crate) fn ids_in(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    words.filter(|word| {
        let Some((area, rest)) = word.split_once('-') else { return false };
        let number = rest.strip_suffix(|c: char| c.is_ascii_lowercase()).unwrap_or(rest);
        let is = |text: &str, kind: fn(&char) -> bool| {
            !text.is_empty() && text.chars().all(|c| kind(&c))
        };
        is(area, char::is_ascii_uppercase) && is(number, char::is_ascii_digit)
    })
}

fn area_of(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

/// The third cell, without what follows a comma there; an area whose rows have other columns has no marks.
fn mark(cells: &[String]) -> String {
    let mark = cells.get(2).and_then(|cell| cell.split(',').next()).unwrap_or_default();
    if ["SEED", "NEAR", "EXT"].contains(&mark) { mark.to_owned() } else { String::new() }
}

fn state(cells: &[String]) -> Option<State> {
    match cells.get(2)?.as_str() {
        "done" => Some(State::Done),
        "begun" => Some(State::Begun),
        "later" => Some(State::Later),
        _ => None,
    }
}

/// The cells of each line of a table, two of them at least.
fn cells_of(file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>())
        .filter(|cells| cells.len() >= 2)
        .collect()
}
