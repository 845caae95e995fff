//! Data directories of every format that there was, as a killed server left them (`fixtures/make.sh`): each is opened and
//! holds what was written.

use std::path::Path as DirPath;
use std::process::Command;

use ombak::domain::cell::{Element, Path, Payload, Selection};
use ombak::domain::key::{BucketName, ObjectName};
use ombak::store::Store;
use ombak::store::embedded::{EmbeddedOptions, EmbeddedStore};

use super::support::*;

pub fn unpack(name: &str, dir: &DirPath) {
    let archive = DirPath::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/fixtures").join(name);
    let data = dir.join("data");
    std::fs::create_dir(&data).unwrap();
    let status = Command::new("tar").arg("-xzSf").arg(archive).arg("-C").arg(data).status().unwrap();
    assert!(status.success());
}

fn named(bucket_type: &str, key: &str) -> ObjectName {
    let bucket = BucketName { bucket_type: bytes(bucket_type), bucket: bytes("b") };
    ObjectName { bucket, key: bytes(key) }
}

async fn holds_what_was_written(archive: &str) {
    let dir = tempfile::tempdir().unwrap();
    unpack(archive, dir.path());
    // Twice: as it was found, and as the first start left it.
    for _ in 0..2 {
        let options = EmbeddedOptions::new(dir.path().join("data"), ACTOR);
        check(&open_with(options)).await;
    }
    let format = std::fs::read_to_string(dir.path().join("data/FORMAT")).unwrap();
    assert_eq!(format, "ombak 3\n");
}

pub async fn check(store: &EmbeddedStore) {
    assert_ne!(store.actor(), ACTOR, "the directory keeps its identity");
    let values = read(store, &named("kept", "siblings"), &Selection::values()).await;
    let mut texts: Vec<_> = values.siblings().map(|(_, content)| content.value.clone()).collect();
    texts.sort();
    assert_eq!(texts, ["one", "two"]);
    let kept = BucketName { bucket_type: bytes("kept"), bucket: bytes("b") };
    for number in ["1", "2"] {
        let range = between("n_int", number, number);
        assert_eq!(postings(store, &kept, &range, 10).await.len(), 1);
    }
    assert_eq!(keys(store, &kept, 10).await, ["siblings"]);
    let plain = read(store, &named("default", "plain"), &Selection::values()).await;
    assert_eq!(plain.siblings().next().unwrap().1.value, "value");

    let of = async |name: &ObjectName| read(store, name, &[Selection::Subtree(Path::root())]).await;
    let counter = of(&named("counters", "c")).await;
    let share = |payload: &Payload| if let Payload::Counter(share) = payload { Some(share.value()) } else { None };
    assert_eq!(counter.all().iter().find_map(|cell| share(&cell.payload)), Some(5));
    let members = async |key: &str| {
        let cells = of(&named("sets", key)).await;
        cells.all().iter().filter(|cell| matches!(cell.key.element, Element::Member(_))).count()
    };
    assert_eq!((members("small").await, members("large").await), (3, 400));
    let map = of(&named("maps", "m")).await;
    assert_eq!(map.all().iter().find_map(|cell| share(&cell.payload)), Some(3));
    let hll = of(&named("hlls", "h")).await;
    assert!(hll.all().iter().any(|cell| matches!(cell.payload, Payload::Hll(_))));
    let records = store.records().await.unwrap();
    assert!(records.iter().any(|(name, _)| name == "type/kept"), "{records:?}");
    assert!(store.clock_bound().0 > 0);
}

#[tokio::test]
async fn a_directory_without_a_commit_log_is_taken_over() {
    holds_what_was_written("v1.tar.gz").await;
}

#[tokio::test]
async fn a_directory_with_an_unapplied_commit_log_is_replayed() {
    holds_what_was_written("v2.tar.gz").await;
}

#[tokio::test]
async fn a_directory_with_tables_of_its_own_is_replayed() {
    holds_what_was_written("v3.tar.gz").await;
}
