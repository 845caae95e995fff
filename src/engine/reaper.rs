//! Removes tombstones when their time has come.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use super::{DeleteMode, EngineError, Inner};
use crate::domain::cell::Selection;
use crate::domain::context::CausalContext;
use crate::domain::key::{BucketName, ObjectName};
use crate::domain::object;
use crate::store::Horizon;

/// Removals at a time.
const REMOVALS_MAX: usize = 64;
/// What an entry takes beside its name and context, in bytes: its places in the two maps, and what allocations cost.
const ENTRY_BYTES: usize = 512;

/// Takes note of tombstones.
#[derive(Clone)]
pub(super) struct Reaper {
    /// `None` where tombstones are kept.
    waiting: Option<Arc<Waiting>>,
    /// Wakes the task that removes them, and ends it with the last reaper.
    wake: Option<mpsc::Sender<()>>,
}

impl Reaper {
    pub(super) fn start(inner: Arc<Inner>) -> Self {
        let DeleteMode::After(delay) = inner.options.delete_mode else { return Self { waiting: None, wake: None } };
        let waiting = Arc::new(Waiting::new(delay, inner.options.tombstones_waiting_bytes_max));
        let (wake, woken) = mpsc::channel(1);
        tokio::spawn(run(inner, waiting.clone(), woken));
        Self { waiting: Some(waiting), wake: Some(wake) }
    }

    /// Asks for the removal of an object's tombstones after the configured time. Where there is no room for that, the next read
    /// of the object asks again.
    pub(super) fn notice(&self, name: &ObjectName, context: CausalContext) {
        if let (Some(waiting), Some(wake)) = (&self.waiting, &self.wake)
            && waiting.add(name, context)
        {
            // Somebody else's wake-up does as well.
            let _ = wake.try_send(());
        }
    }
}

/// Objects whose tombstones wait, each once.
struct Waiting {
    delay: Duration,
    size_bytes_max: usize,
    // Held for the length of one call and never across an await.
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// In the order in which they were noticed. Every tombstone waits equally long, so they come due in that order too.
    order: BTreeMap<u64, Due>,
    /// Where an object stands in it.
    places: HashMap<ObjectName, u64>,
    /// The next place.
    next: u64,
    size_bytes: usize,
}

struct Due {
    at: Instant,
    name: ObjectName,
    /// The tombstones as they were noticed. Has the object changed since, they stay.
    context: CausalContext,
}

impl Due {
    fn size_bytes(&self) -> usize {
        size_bytes(&self.name, &self.context)
    }
}

/// What an entry takes in memory.
fn size_bytes(name: &ObjectName, context: &CausalContext) -> usize {
    let BucketName { bucket_type, bucket } = &name.bucket;
    ENTRY_BYTES + bucket_type.len() + bucket.len() + name.key.len() + size_of_val(context.entries())
}

impl Waiting {
    fn new(delay: Duration, size_bytes_max: usize) -> Self {
        Self { delay, size_bytes_max, queue: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // At worst an entry is missing, or counted for ever.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an object's tombstones wait from now on, unless these wait already; others of the same object no longer do. Whether
    /// something was added.
    fn add(&self, name: &ObjectName, context: CausalContext) -> bool {
        let mut queue = self.queue();
        if let Some(&place) = queue.places.get(name) {
            if queue.order.get(&place).is_some_and(|due| due.context == context) {
                return false;
            }
            queue.remove(place);
        }
        if queue.size_bytes + size_bytes(name, &context) > self.size_bytes_max {
            return false;
        }
        // Copied: the request's name is a slice of all that arrived with it.
        queue.push(Due { at: Instant::now() + self.delay, name: copied(name), context });
        true
    }

    /// When the first one is due.
    fn first(&self) -> Option<Instant> {
        self.queue().order.first_key_value().map(|(_, due)| due.at)
    }

    /// Takes the first one, if it is due.
    fn take(&self) -> Option<Due> {
        let mut queue = self.queue();
        let (&place, due) = queue.order.first_key_value()?;
        if due.at > Instant::now() {
            return None;
        }
        queue.remove(place)
    }
}

impl Queue {
    fn push(&mut self, due: Due) {
        self.size_bytes += due.size_bytes();
        self.places.insert(due.name.clone(), self.next);
        self.order.insert(self.next, due);
        self.next += 1;
    }

    fn remove(&mut self, place: u64) -> Option<Due> {
        let due = self.order.remove(&place)?;
        self.places.remove(&due.name);
        self.size_bytes -= due.size_bytes();
        Some(due)
    }
}

fn copied(name: &ObjectName) -> ObjectName {
    let ObjectName { bucket: BucketName { bucket_type, bucket }, key } = name;
    let [bucket_type, bucket, key] = [bucket_type, bucket, key].map(|part| Bytes::copy_from_slice(part));
    ObjectName { bucket: BucketName { bucket_type, bucket }, key }
}

/// Removes what comes due until there is no reaper any more and nothing waits.
async fn run(inner: Arc<Inner>, waiting: Arc<Waiting>, mut woken: mpsc::Receiver<()>) {
    let removals = Arc::new(Semaphore::new(REMOVALS_MAX));
    loop {
        let Some(at) = waiting.first() else {
            match woken.recv().await {
                Some(()) => continue,
                None => return,
            }
        };
        sleep_until(at).await;
        // It may have changed meanwhile, and waits anew.
        let Some(due) = waiting.take() else { continue };
        let Ok(permit) = removals.clone().acquire_owned().await else { return };
        let inner = inner.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.reap(due.name, due.context).await {
                tracing::warn!(%error, "a tombstone could not be removed");
            }
            drop(permit);
        });
    }
}

impl Inner {
    async fn reap(&self, name: ObjectName, context: CausalContext) -> Result<(), EngineError> {
        let _turn = self.lock(&name, 0, self.options.request_timeout_default).await?;
        let seen = self.store.read(&name, &Selection::values(), &Horizon::default()).await?;
        if object::context_of(&seen) != context {
            return Ok(());
        }
        let dot = self.clock.draw()?;
        if let Some(delta) = object::reap(&seen, dot) {
            self.store.commit(name, delta)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dot::{ActorId, Dot, Time};

    const DELAY: Duration = Duration::from_secs(3);

    fn name(key: &'static str) -> ObjectName {
        ObjectName { bucket: BucketName::new(None, "b".into()), key: key.into() }
    }

    fn context(time: u64) -> CausalContext {
        [Dot { actor: ActorId(1), time: Time(time) }].into_iter().collect()
    }

    impl Waiting {
        fn counted(&self) -> (usize, usize) {
            let queue = self.queue();
            assert_eq!(queue.order.len(), queue.places.len());
            assert_eq!(queue.order.values().map(Due::size_bytes).sum::<usize>(), queue.size_bytes);
            (queue.order.len(), queue.size_bytes)
        }

        fn take_key(&self) -> Option<Bytes> {
            self.take().map(|due| due.name.key)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_noticed_again_waits_once() {
        let waiting = Waiting::new(DELAY, usize::MAX);
        assert!(waiting.add(&name("k"), context(1)));
        let once = waiting.counted();
        assert_eq!(once.0, 1);
        tokio::time::advance(DELAY / 2).await;
        for _ in 0..100 {
            assert!(!waiting.add(&name("k"), context(1)));
        }
        assert_eq!(waiting.counted(), once);
        tokio::time::advance(DELAY / 2).await;
        assert_eq!(waiting.take_key(), Some("k".into()), "it waits since it was first noticed");
        assert_eq!((waiting.counted(), waiting.first()), ((0, 0), None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_changed_waits_anew() {
        let waiting = Waiting::new(DELAY, usize::MAX);
        assert!(waiting.add(&name("k"), context(1)));
        assert!(waiting.add(&name("other"), context(2)));
        tokio::time::advance(DELAY / 2).await;
        assert!(waiting.add(&name("k"), context(3)));
        assert_eq!(waiting.counted().0, 2);
        tokio::time::advance(DELAY / 2).await;
        assert_eq!((waiting.take_key(), waiting.take_key()), (Some("other".into()), None));
        tokio::time::advance(DELAY / 2).await;
        let due = waiting.take().unwrap();
        assert_eq!((due.name, due.context), (name("k"), context(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_in_bytes_and_not_in_names() {
        let large = |n: usize| ObjectName { key: vec![b'x'; n].into(), ..name("") };
        let waiting = Waiting::new(DELAY, 100_000);
        // Names of 64 KiB, as the default limit on keys allows them: one fits.
        assert!(waiting.add(&large(65_535), context(1)));
        assert!(!waiting.add(&large(65_536), context(1)));
        assert!(waiting.add(&name("small"), context(1)));
        assert_eq!(waiting.counted().0, 2);
        tokio::time::advance(DELAY).await;
        assert!(waiting.take().is_some());
        assert!(waiting.add(&large(65_536), context(1)), "there is room again");
    }

    #[test]
    fn a_name_that_waits_does_not_keep_what_arrived_with_it() {
        let arrived = Bytes::from(vec![b'k'; 1_000_000]);
        let waiting = Waiting::new(DELAY, usize::MAX);
        waiting.add(&ObjectName { key: arrived.slice(5..6), ..name("") }, context(1));
        assert!(arrived.try_into_mut().is_ok(), "somebody keeps the frame");
    }
}
