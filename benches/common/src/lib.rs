//! What all servers of the comparison share, those of other runtimes and the product's own: what they are asked to do, where
//! they listen, and what they send.

mod address;
mod mailbox;
mod mode;
mod options;
mod stream;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

pub use address::{Address, BACKLOG};
pub use mailbox::Mailbox;
pub use mode::Mode;
pub use options::{Options, options};
pub use stream::{Check, SOURCE, SOURCE_BLOCKS, source};

/// Says where the server listens, in the line that whoever started it waits for.
pub fn announce(address: &Address) {
    println!("listening on {address}");
    io::stdout().flush().expect("stdout is open");
}

/// Reports why a server ended.
pub fn end<T, E: Display>(result: Result<T, E>) -> ExitCode {
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The size of a connection's buffer: that of all servers in the comparison.
pub const BUFFER: usize = 16 * 1024;

/// The bytes of each of the many writes of [`Mode::Small`].
pub const SMALL: usize = 32;
