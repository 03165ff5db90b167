//! Random scripts with the traces that CPython gave of them.

use serde_json::Value;

/// All that are `recorded`, or those of the file that a developer names in the environment.
pub(crate) fn scripts(variable: &str, recorded: &str) -> Vec<Value> {
    let scripts = match std::env::var(variable) {
        Ok(path) => &std::fs::read_to_string(path).expect("the file of scripts can be read"),
        Err(_) => recorded,
    };
    serde_json::from_str(scripts).expect("scripts are a list in JSON")
}

/// The lines that CPython gave of one of them.
pub(crate) fn trace(script: &Value) -> Vec<String> {
    list(&script["trace"]).iter().map(|line| text(line).to_owned()).collect()
}

/// `failed` says of each script that gave something else, how its trace differs.
pub(crate) fn check(failed: Vec<String>, scripts: &[Value]) {
    let (count, all) = (failed.len(), scripts.len());
    assert!(failed.is_empty(), "{count} of {all} scripts\n{}", failed.join("\n"));
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

pub(crate) fn number(value: &Value) -> usize {
    value.as_u64().expect("a number") as usize
}
