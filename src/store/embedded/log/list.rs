//! Which files a log has: a list beside them, which is replaced whole. A file is listed when it is on disk, before anything is
//! written to it, and is no longer listed when it is removed. So one that is listed and not there was taken away.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::Disk;

const NAME: &str = "FILES";
const NEW_NAME: &str = "FILES.new";
const FIRST_LINE: &str = "ombak log files 1";

/// A log's files, as they are listed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileList {
    /// The log's name.
    pub(super) log: u64,
    /// The numbers of its files.
    pub(super) numbers: BTreeSet<u64>,
}

impl FileList {
    /// Puts the list on disk, in place of the one before.
    pub(super) fn write(&self, dir: &Path, disk: &dyn Disk) -> io::Result<()> {
        let new = dir.join(NEW_NAME);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&new, false)?;
        disk.write_at(&file, self.spell().as_bytes(), 0)?;
        disk.sync(&file)?;
        fs::rename(&new, dir.join(NAME))?;
        disk.sync_dir(dir)
    }

    /// The list in a directory; `None` where there is none, or none that can be read.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(dir.join(NAME)) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lines for the log's name and the number of each file, and a checksum of all that is before it.
    fn spell(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n{:016x}\n", self.log);
        for number in &self.numbers {
            text += &format!("{number}\n");
        }
        let checksum = crc32fast::hash(text.as_bytes());
        text += &format!("{checksum:08x}\n");
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let (listed, checksum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let checksum = u32::from_str_radix(checksum, 16).ok()?;
        if crc32fast::hash(text.get(..listed.len() + 1)?.as_bytes()) != checksum {
            return None;
        }
        let mut lines = listed.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let log = u64::from_str_radix(lines.next()?, 16).ok()?;
        let numbers = lines.map(|line| line.parse().ok()).collect::<Option<_>>()?;
        Some(Self { log, numbers })
    }
}

#[cfg(test)]
mod tests {
    use super::super::SystemDisk;
    use super::*;

    #[test]
    fn a_list_comes_back_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FileList::read(dir.path()).unwrap(), None);
        // A crash left it behind.
        fs::write(dir.path().join(NEW_NAME), "omb").unwrap();
        for numbers in [vec![], vec![0], vec![0, 3, u64::MAX]] {
            let list = FileList { log: 0xfe, numbers: numbers.into_iter().collect() };
            list.write(dir.path(), &SystemDisk).unwrap();
            assert_eq!(FileList::read(dir.path()).unwrap(), Some(list));
        }
    }

    #[test]
    fn a_list_that_was_changed_is_none() {
        let whole = FileList { log: 5, numbers: BTreeSet::from([1, 20]) }.spell();
        for end in 0..whole.len() {
            assert_eq!(FileList::parse(&whole[..end]), None, "cut at {end}");
        }
        for at in 0..whole.len() - 1 {
            let mut changed = whole.clone().into_bytes();
            changed[at] ^= 1;
            assert_eq!(FileList::parse(&String::from_utf8(changed).unwrap()), None, "changed at {at}");
        }
    }
}
