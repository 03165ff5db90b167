//! The driver's face: what passes it, and what must not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A second driver could not have them: so no type of the io-uring crate is in a public signature.
#[test]
fn no_type_of_the_io_uring_crate_passes_the_face() {
    let mut wrong = Vec::new();
    for file in rust_files(&source()) {
        let text = fs::read_to_string(&file).unwrap();
        let foreign = names_from_io_uring(&text);
        for signature in public_signatures(&text).into_iter().chain(trait_implementations(&text)) {
            let words: BTreeSet<&str> =
                signature.split(|c: char| c != '_' && !c.is_alphanumeric()).collect();
            let named = foreign.iter().find(|name| words.contains(name.as_str()));
            if let Some(name) = named.map(String::as_str).or_else(|| words.get("io_uring").copied())
            {
                wrong.push(format!("{}: {name} in `{signature}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The reader of the sources finds what is there: else the test above would be true of anything.
#[test]
fn the_public_signatures_are_found_and_what_is_imported_is_known() {
    let text = fs::read_to_string(source().join("driver/mod.rs")).unwrap();
    let signatures = public_signatures(&text);
    for expected in ["pub struct Driver", "pub fn accept_multishot", "pub fn wait"] {
        assert!(signatures.iter().any(|signature| signature.starts_with(expected)), "{expected}");
    }
    let sent = signatures.iter().find(|signature| signature.starts_with("pub fn send(")).unwrap();
    assert!(sent.contains("queue: SendQueue") && sent.ends_with("-> OpKey"), "{sent}");
    let fields = fs::read_to_string(source().join("completion.rs")).unwrap();
    let outcome = public_signatures(&fields);
    let outcome = outcome.iter().find(|item| item.starts_with("pub enum Outcome")).unwrap();
    assert!(outcome.contains("Accepted(io::Result<Descriptor>)"), "{outcome}");
    assert!(names_from_io_uring(&text).contains("Request"));
    let example =
        "use io_uring::{opcode, types::{Fd as Number}};\npub fn push(entry: Number) {\n}\n";
    assert!(names_from_io_uring(example).contains("Number"));
    assert_eq!(public_signatures(example), ["pub fn push(entry: Number)"]);
}

/// What a file knows of the io-uring crate, by the names that it uses.
fn names_from_io_uring(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for import in text.split("use io_uring::").skip(1) {
        let import = &import[..import.find(';').unwrap()];
        for path in import.split(['{', '}', ',']) {
            let name = path.rsplit("::").next().unwrap();
            let name = name.rsplit(" as ").next().unwrap().trim();
            if !name.is_empty() {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// Everything that is `pub` without a bound, on one line each: functions up to their bodies, types with all that is public in
/// them. Comments are left out.
fn public_signatures(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap().trim())
        .collect::<Vec<_>>()
        .join(" ");
    let mut signatures = Vec::new();
    for (start, _) in code.match_indices("pub ") {
        let is_word = code[..start].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        if !is_word {
            continue;
        }
        let item = &code[start..];
        let whole = ["pub enum ", "pub trait "].iter().any(|kind| item.starts_with(kind));
        let end = if whole { end_of_braces(item) } else { item.find(['{', ';']) };
        signatures.push(item[..end.unwrap_or(item.len())].trim().to_owned());
    }
    signatures
}

/// What types can be made of, or used as.
fn trait_implementations(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.starts_with("impl") && line.contains(" for "));
    lines.map(str::to_owned).collect()
}

fn end_of_braces(item: &str) -> Option<usize> {
    let mut depth = 0;
    for (place, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(place + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
