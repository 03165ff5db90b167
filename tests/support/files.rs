//! Files for tests.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file without a name, with `data` in it, at its beginning.
pub fn temporary(data: &[u8]) -> File {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name =
        format!("ringloop-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    fs::remove_file(path).unwrap();
    file.write_all(data).unwrap();
    file.rewind().unwrap();
    file
}
