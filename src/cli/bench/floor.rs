//! What the disk itself takes for a durable write: one append, one fdatasync, and again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use super::lock;
use super::measured::Measured;
use crate::cli::CliError;
use crate::client::Received;

/// Appends as many bytes at a time to a file of its own in the directory, until the run is over.
pub(super) fn append(dir: &Path, bytes: u32, measured: &Mutex<Measured>) -> Result<(), CliError> {
    let path = dir.join(format!("ombak-bench-fsync-{}", std::process::id()));
    let failed = |cause: io::Error| CliError::Failed { reason: format!("cannot write {}: {cause}", path.display()) };
    let mut file = File::create_new(&path).map_err(failed)?;
    let appended = append_to(&mut file, bytes, measured);
    fs::remove_file(&path).map_err(failed)?;
    appended.map_err(failed)
}

fn append_to(file: &mut File, bytes: u32, measured: &Mutex<Measured>) -> io::Result<()> {
    let bytes = vec![b'x'; bytes as usize];
    let mut before = Instant::now();
    while !lock(measured).is_over(before) {
        file.write_all(&bytes)?;
        file.sync_data()?;
        let after = Instant::now();
        lock(measured).take(Received { latency: after - before, replies: 1, refused: None }, after);
        before = after;
    }
    Ok(())
}
