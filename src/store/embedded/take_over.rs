//! Taking over a data directory whose tables are those of the engine fjall, which kept a journal of its own in front of them:
//! formats 1 and 2. Its tables are of the kind that ours are, so they need only be moved.
//!
//! A crash at any step leaves a directory that the next start takes over: until the tables are moved, in one rename, the
//! engine has everything; from then on they have, and what is left of the engine is no longer looked at. That it is there says
//! that the tables may not name the commit log yet.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::{OpenError, TABLES_DIR};

/// Where the engine keeps its files in a data directory.
const ENGINE_DIR: &str = "engine";
/// What the engine's directory has once the engine was made: before that nothing was ever stored.
const ENGINE_MARKER: &str = "version";
/// How often the engine is asked whether it has written its tables: it tells nobody.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The one key space.
const ROWS: &str = "rows";

/// Moves the tables of the engine to where ours are.
///
/// # Errors
/// When the engine cannot be opened, or not write what its journal holds to tables.
pub(super) fn take_over(dir: &Path) -> Result<(), OpenError> {
    let io = |error| OpenError::Io { dir: dir.to_owned(), error };
    let engine_error = |error: fjall::Error| OpenError::Engine { dir: dir.to_owned(), reason: error.to_string() };
    let (engine, tables) = (dir.join(ENGINE_DIR), dir.join(TABLES_DIR));
    // A crash came behind the move.
    if tables.try_exists().map_err(io)? {
        return Ok(());
    }
    // A crash came before the engine was made.
    if !engine.join(ENGINE_MARKER).try_exists().map_err(io)? {
        return Ok(());
    }
    tracing::info!("taking over the data directory from an earlier release");
    let moved = {
        let database = Database::builder(&engine).open().map_err(engine_error)?;
        if !database.keyspace_exists(ROWS) {
            return Ok(());
        }
        let keyspace = database.keyspace(ROWS, KeyspaceCreateOptions::default).map_err(engine_error)?;
        keyspace.rotate_memtable().map_err(engine_error)?;
        // Its journal may have left more than one to be written to a table.
        while keyspace.sealed_memtable_count() > 0 {
            // After a failure nothing is written any more, which only this tells.
            database.persist(PersistMode::Buffer).map_err(engine_error)?;
            thread::sleep(POLL_INTERVAL);
        }
        keyspace.path().to_owned()
    };
    fs::rename(&moved, &tables).map_err(io)?;
    for changed in moved.parent().into_iter().chain([dir]) {
        File::open(changed).and_then(|changed| changed.sync_all()).map_err(io)?;
    }
    Ok(())
}

/// Whether there is something left of the engine: until the log has a name, which its tables did not know.
pub(super) fn has_engine(dir: &Path) -> io::Result<bool> {
    dir.join(ENGINE_DIR).try_exists()
}

/// Removes what is left of the engine once its tables were taken over, and name the log.
pub(super) fn remove_engine(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(ENGINE_DIR)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(dir)?.sync_all(),
    }
}
