//! Documentation that users see has no ids: whoever reads it has no docs/behaviour.md beside it.
//!
//! An item without `pub` is public where what it stands in is: a variant, a method of a trait, an implementation. The lint
//! `unreachable_pub` sees to it that nothing else has a bare `pub`.

use std::fs;
use std::path::Path;

use crate::rows::{Contract, ids_in};
use crate::{files, root, shown};

/// The ids in what rustdoc shows of public items.
pub(crate) fn ids(contract: &Contract) -> Vec<String> {
    let crates = root().join("crates");
    let mut sources = files();
    sources.retain(|file| {
        let folder = file.strip_prefix(&crates).ok().and_then(|inside| inside.iter().nth(1));
        folder.is_some_and(|folder| folder == "src" || folder == "README.md")
    });
    sources.push(root().join("README.md"));
    sources.iter().flat_map(|file| ids_of_file(file, contract)).collect()
}

fn ids_of_file(file: &Path, contract: &Contract) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let lines: Vec<_> = text.lines().collect();
    let is_readme = file.extension().is_some_and(|extension| extension == "md");
    let is_public = |number: usize| {
        let line = lines[number].trim_start();
        match line {
            _ if is_readme => true,
            _ if line.starts_with("//!") => is_public_module(file),
            _ if line.starts_with("///") => is_above_public_item(&lines, number),
            _ => false,
        }
    };
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let mut ids = ids_in(line).filter(|id| contract.has_area_of(id)).peekable();
        if ids.peek().is_some() && is_public(number) {
            found.push(format!("{}:{}: {}", shown(file), number + 1, line.trim()));
        }
    }
    found
}

/// The root of a crate, and what is declared as `pub mod`.
fn is_public_module(file: &Path) -> bool {
    let Some(name) = file.file_stem().and_then(|name| name.to_str()) else { return false };
    let Some(folder) = file.parent() else { return false };
    let declared = |file: &Path, name: &str| {
        fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("pub mod {name};")))
    };
    match name {
        "lib" => true,
        "mod" => is_public_module(folder),
        _ => ["mod.rs", "lib.rs"].iter().any(|parent| declared(&folder.join(parent), name)),
    }
}

fn is_above_public_item(lines: &[&str], number: usize) -> bool {
    let mut above = lines[number..].iter();
    let item =
        above.find(|line| !["//", "#", ")"].iter().any(|c| line.trim_start().starts_with(c)));
    let Some(item) = item else { return false };
    item.trim_start().starts_with("pub ") || is_in_public_item(lines, number)
}

/// Whether the nearest line above with a smaller indent opens a public item, or an implementation.
fn is_in_public_item(lines: &[&str], number: usize) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let inner = indent(lines[number]);
    let outer = lines[..number].iter().rev().find(|line| !line.is_empty() && indent(line) < inner);
    let Some(outer) = outer.map(|line| line.trim_start()) else { return false };
    let has_public_parts = ["pub enum", "pub trait", "pub struct", "macro_rules"];
    let is_trait_impl = outer.starts_with("impl") && outer.contains(" for ");
    is_trait_impl || has_public_parts.iter().any(|item| outer.starts_with(item))
}
