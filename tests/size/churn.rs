//! Members that come and go: what they leave behind does not stay.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path as DirPath;

use ombak::domain::datatype::DataType;
use ombak::domain::datatype::value::Value;
use ombak::store::embedded::{Durability, EmbeddedOptions, RowLimits};

use crate::workbench::*;

/// The bench goes to a million.
const PAIRS: u64 = 20_000;
const MEMBERS: u64 = 1_000;

#[test]
fn members_that_come_and_go_leave_neither_rows_nor_files() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Workbench::open(EmbeddedOptions {
        durability: Durability::NoneForBenches,
        rows: RowLimits::default(),
        ..options(dir.path())
    });
    let name = object("sets", "k");
    bench.grow_set(&name, MEMBERS);
    let rows = bench.store.row_count().unwrap();
    for pair in 0..PAIRS {
        let member = number(pair % MEMBERS);
        bench.update(&name, remove([member.clone()].into_iter()));
        bench.update(&name, add([member].into_iter()));
    }
    assert_eq!(bench.store.row_count().unwrap(), rows);
    let before = bench.store.counts();
    assert_eq!(bench.fetch(&name, DataType::Set), Value::Set((0..MEMBERS).map(number).collect()));
    assert_eq!(bench.store.counts().since(before).scanned, MEMBERS);
    // The engine has written its rows early and kept what is live of them. What it appends to is not counted.
    let (tables, journals) = (disk(dir.path(), false), disk(dir.path(), true));
    assert!(tables > 0, "no table was written");
    assert!(tables < 2 * 1024 * 1024, "{tables} bytes in tables");
    assert!(journals <= 2 * 64 * 1024 * 1024, "{journals} bytes in journals");
}

/// Bytes that the files below a directory take, of journals or of all others.
fn disk(dir: &DirPath, journals: bool) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk(&entry.path(), journals),
        Ok(metadata) if is_journal(&entry.path()) == journals => metadata.blocks() * 512,
        _ => 0,
    };
    entries.map(size).sum()
}

/// Whether a file is the engine's journal or one of the commit log.
fn is_journal(path: &DirPath) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl" || extension == "log")
}
