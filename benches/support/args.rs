//! Command lines: options with a value, and flags.

use std::fmt::Display;
use std::process::ExitCode;
use std::str::FromStr;

use crate::failure::Failure;

/// What is left of the command line.
#[derive(Debug)]
pub struct Args {
    words: Vec<String>,
}

/// Runs a program, and says in its exit code how it went: 2 after bad usage, 1 if it cannot start.
pub fn run(usage: &str, program: impl FnOnce(Args) -> Result<ExitCode, Failure>) -> ExitCode {
    let mut args = Args::new(std::env::args().skip(1));
    if args.flag("--help") || args.flag("-h") {
        println!("{usage}");
        return ExitCode::SUCCESS;
    }
    match program(args) {
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

impl Args {
    /// A command line, without the program's name. `--name=value` is the same as `--name value`.
    pub fn new(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut separate = Vec::new();
        for word in words {
            let word = word.into();
            match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => {
                    separate.extend([name.to_owned(), value.to_owned()]);
                }
                _ => separate.push(word),
            }
        }
        Self { words: separate }
    }

    /// Takes a flag; true if it was there.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// Takes an option; the last one counts.
    pub fn value<T>(&mut self, name: &str) -> Result<Option<T>, Failure>
    where
        T: FromStr<Err: Display>,
    {
        let mut value = None;
        while let Some(index) = self.words.iter().position(|word| word == name) {
            self.words.remove(index);
            if index == self.words.len() {
                return Err(Failure::Usage(format!("{name} needs a value")));
            }
            let word = self.words.remove(index);
            let problem = |error| Failure::Usage(format!("{name} {word}: {error}"));
            value = Some(word.parse().map_err(problem)?);
        }
        Ok(value)
    }

    /// Takes an option that holds a list: `a,b,c`.
    pub fn list<T>(&mut self, name: &str) -> Result<Option<Vec<T>>, Failure>
    where
        T: FromStr<Err: Display>,
    {
        let Some(words) = self.value::<String>(name)? else { return Ok(None) };
        let parse = |word: &str| {
            word.parse().map_err(|error| Failure::Usage(format!("{name} {word}: {error}")))
        };
        words.split(',').map(parse).collect::<Result<_, _>>().map(Some)
    }

    /// Refuses what nobody has taken.
    pub fn finish(self) -> Result<(), Failure> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(Failure::Usage(format!("unknown argument: {word}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_flags_are_taken_in_any_order() {
        let mut args = Args::new(["--port", "80", "--verify", "--seed=7", "--cells", "a,b"]);
        assert_eq!(args.value::<u64>("--seed").unwrap(), Some(7));
        assert_eq!(args.value::<u16>("--port").unwrap(), Some(80));
        assert_eq!(args.list::<String>("--cells").unwrap().unwrap(), ["a", "b"]);
        assert!(args.flag("--verify"));
        assert!(!args.flag("--burst"));
        assert_eq!(args.value::<u16>("--conns").unwrap(), None);
        args.finish().unwrap();
    }

    #[test]
    fn bad_usage_is_named() {
        let problem = |words: &[&str]| {
            let mut args = Args::new(words.iter().copied());
            match args.value::<u16>("--port").and_then(|_| args.finish()) {
                Err(Failure::Usage(problem)) => problem,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(problem(&["--port"]), "--port needs a value");
        assert_eq!(problem(&["--port", "x"]), "--port x: invalid digit found in string");
        assert_eq!(problem(&["--prot", "1"]), "unknown argument: --prot");
    }
}
