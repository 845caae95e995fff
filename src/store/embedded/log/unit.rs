//! How large a piece of a file a disk writes: frames begin at multiples of it, so that no frame is harmed by the writing of the
//! next.

use std::fs;
use std::path::{Path, PathBuf};

use super::frame::UNIT_BYTES_MIN;

/// The unit where the device does not tell: the largest block that disks usually have.
pub(super) const UNIT_BYTES_DEFAULT: usize = 4096;
/// The largest unit.
pub(super) const UNIT_BYTES_MAX: usize = 64 * 1024;

/// The unit for a size of block that was told.
pub(super) fn of_block(block_bytes: Option<usize>) -> usize {
    match block_bytes {
        Some(bytes) if bytes.is_power_of_two() && bytes <= UNIT_BYTES_MAX => bytes.max(UNIT_BYTES_MIN),
        _ => UNIT_BYTES_DEFAULT,
    }
}

/// The physical block of the device that a directory is on, in bytes; `None` where it has none, as in a file system of
/// several devices or without one.
#[cfg(target_os = "linux")]
pub(super) fn physical_block_bytes(dir: &Path) -> Option<usize> {
    use std::os::linux::fs::MetadataExt;
    let device = fs::metadata(dir).ok()?.st_dev();
    let device = Path::new("/sys/dev/block").join(format!("{}:{}", libc::major(device), libc::minor(device)));
    block_bytes_of(&device)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn physical_block_bytes(_dir: &Path) -> Option<usize> {
    None
}

/// What a device's own directory says, or that of the disk which a partition is of.
fn block_bytes_of(device: &Path) -> Option<usize> {
    let read = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse().ok();
    let of = |device: &Path| read(device.join("queue/physical_block_size"));
    of(device).or_else(|| of(fs::canonicalize(device).ok()?.parent()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_the_block_or_the_usual_one() {
        let cases = [
            (None, 4096),
            (Some(512), 512),
            (Some(4096), 4096),
            (Some(16384), 16384),
            (Some(65536), 65536),
            // What no disk should say.
            (Some(0), 4096),
            (Some(1), 512),
            (Some(1000), 4096),
            (Some(1 << 30), 4096),
        ];
        for (block_bytes, expected) in cases {
            assert_eq!(of_block(block_bytes), expected, "{block_bytes:?}");
        }
    }

    #[test]
    fn a_partition_has_the_block_of_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("block/sda");
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir(disk.join("sda1")).unwrap();
        fs::write(disk.join("queue/physical_block_size"), "512\n").unwrap();
        for (device, target) in [("8:0", disk.clone()), ("8:1", disk.join("sda1"))] {
            let link = dir.path().join(device);
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert_eq!(block_bytes_of(&link), Some(512), "{device}");
        }
        assert_eq!(block_bytes_of(&dir.path().join("none")), None);
    }
}
