//! Command lines, and how a program ends.

use std::fmt::Display;
use std::process::ExitCode;
use std::str::FromStr;

use pico_args::Arguments;

use crate::failure::Failure;

/// Runs a program, and says in its exit code how it went: 2 after bad usage, 1 if it cannot start.
pub fn run(usage: &str, program: impl FnOnce(Arguments) -> Result<ExitCode, Failure>) -> ExitCode {
    let mut arguments = Arguments::from_env();
    if arguments.contains(["-h", "--help"]) {
        println!("{usage}");
        return ExitCode::SUCCESS;
    }
    match program(arguments) {
        Ok(code) => code,
        Err(Failure::Usage(problem)) => {
            eprintln!("{problem}\n{usage}");
            ExitCode::from(2)
        }
        Err(Failure::Cannot { error, remedy }) => {
            eprintln!("error: {error}\nremedy: {remedy}");
            ExitCode::FAILURE
        }
    }
}

/// Takes an option.
pub fn value<T>(arguments: &mut Arguments, name: &'static str) -> Result<Option<T>, Failure>
where
    T: FromStr<Err: Display>,
{
    arguments.opt_value_from_str(name).map_err(|error| Failure::Usage(format!("{name}: {error}")))
}

/// Takes an option that holds a list: `a,b,c`.
pub fn list<T>(arguments: &mut Arguments, name: &'static str) -> Result<Option<Vec<T>>, Failure>
where
    T: FromStr<Err: Display>,
{
    let parse = |list: &str| list.split(',').map(str::parse).collect::<Result<_, _>>();
    arguments
        .opt_value_from_fn(name, parse)
        .map_err(|error| Failure::Usage(format!("{name}: {error}")))
}

/// Refuses what nobody has taken.
pub fn finish(arguments: Arguments) -> Result<(), Failure> {
    match arguments.finish().first() {
        None => Ok(()),
        Some(word) => Err(Failure::Usage(format!("unknown argument: {}", word.to_string_lossy()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments::from_vec(words.iter().map(Into::into).collect())
    }

    #[test]
    fn options_and_lists_are_taken_in_any_order() {
        let mut arguments = arguments(&["--port", "80", "--seed=7", "--cells", "a,b"]);
        assert_eq!(value::<u64>(&mut arguments, "--seed").unwrap(), Some(7));
        assert_eq!(value::<u16>(&mut arguments, "--port").unwrap(), Some(80));
        assert_eq!(list::<String>(&mut arguments, "--cells").unwrap().unwrap(), ["a", "b"]);
        assert_eq!(value::<u16>(&mut arguments, "--conns").unwrap(), None);
        finish(arguments).unwrap();
    }

    #[test]
    fn bad_usage_is_named() {
        for (words, name) in [
            (&["--port"][..], "--port"),
            (&["--port", "x"], "--port"),
            (&["--prot", "1"], "unknown argument: --prot"),
        ] {
            let mut arguments = arguments(words);
            match value::<u16>(&mut arguments, "--port").and_then(|_| finish(arguments)) {
                Err(Failure::Usage(problem)) => assert!(problem.starts_with(name), "{problem}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
