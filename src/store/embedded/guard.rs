//! Threads of the store. One that panics fails the store: nobody waits for what would never come, and everybody is told.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::commit::Commits;
use crate::store::StoreError;

/// Starts a thread that works on the commits. It ends with what its body came to, or with nothing where the body panicked: by
/// then the store takes no more writes, and those who waited have been told so, with the thread's name.
///
/// # Errors
/// When the system has no thread to give.
pub(super) fn spawn<T: Send + 'static>(
    name: &'static str,
    commits: &Arc<Commits>,
    body: impl FnOnce(&Commits) -> T + Send + 'static,
) -> io::Result<JoinHandle<Option<T>>> {
    let commits = commits.clone();
    thread::Builder::new().name(name.into()).spawn(move || {
        // What the threads share lies behind locks that are taken over from one that panicked; each says what it then holds.
        let ended = catch_unwind(AssertUnwindSafe(|| body(&commits)));
        let panicked = |panic: Box<dyn Any + Send>| {
            let reason = format!("the thread {name} panicked: {}", message(panic.as_ref()));
            commits.fail(&StoreError::Engine { reason });
        };
        ended.map_err(panicked).ok()
    })
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say why")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{EmbeddedOptions, EmbeddedStore};
    use super::*;
    use crate::domain::dot::ActorId;
    use crate::store::Store;

    async fn store(dir: &tempfile::TempDir) -> EmbeddedStore {
        let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path().join("data"), ActorId(1))).unwrap();
        let written = store.put_record(Bytes::from_static(b"r"), Some(Bytes::from_static(b"v"))).unwrap();
        store.durable(written).await.unwrap();
        store
    }

    /// Waits until the store has failed, as a write that is not made durable any more does. The reason.
    async fn failure(store: &EmbeddedStore) -> String {
        let told = loop {
            let written = store.put_record(Bytes::from_static(b"more"), None);
            let told = match written {
                Ok(position) => store.durable(position).await,
                Err(refused) => Err(refused),
            };
            if let Err(told) = told {
                break told;
            }
        };
        assert!(matches!(told, StoreError::Engine { .. } | StoreError::ReadOnly { .. }), "{told}");
        let failure = store.failure().unwrap();
        assert_eq!(store.put_record(Bytes::from_static(b"more"), None), Err(failure.clone()));
        assert_eq!(store.records().await.unwrap().len(), 1, "reads go on");
        let StoreError::ReadOnly { reason } = failure else { panic!("{failure}") };
        reason
    }

    #[tokio::test]
    async fn a_thread_that_panics_fails_the_store_and_close_returns() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let panicking = spawn::<()>("sweeper", &store.commits, |_| panic!("at {}", 7)).unwrap();
        assert!(panicking.join().unwrap().is_none());
        assert_eq!(failure(&store).await, "the storage engine failed: the thread sweeper panicked: at 7");
        store.close();
        drop(store);
        assert_eq!(self::store(&dir).await.failure(), None, "a restart mends it");
    }

    #[tokio::test]
    async fn an_applier_that_panics_fails_the_store_and_close_returns() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        store.commits.have_applier_panic();
        assert_eq!(failure(&store).await, "the storage engine failed: the thread applier panicked: the test wants it");
        store.close();
    }

    #[tokio::test]
    async fn a_thread_that_ends_hands_out_what_it_came_to() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let ended = spawn("counter", &store.commits, |commits| commits.failure().is_none()).unwrap();
        assert_eq!(ended.join().unwrap(), Some(true));
        assert_eq!(store.failure(), None);
    }
}
