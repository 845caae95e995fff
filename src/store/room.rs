//! Room for writes: a bound on what a store holds in memory until its tables have it.
//!
//! Whoever is about to write reserves what the write may take, and waits where there is not so much left. So the bound holds
//! however many write at once, and however large what they write is. And where the tables are behind, a store says how fast
//! more may come: all then wait a little, and nobody for long when there is no room left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::error::Elapsed;
use tokio::time::{Duration, Instant, sleep_until, timeout};

/// What is left of a bound, in bytes. Clones are of the same room.
#[derive(Clone)]
pub struct Room(Arc<Inner>);

struct Inner {
    bytes_max: usize,
    /// What was written and is still in memory.
    held: AtomicUsize,
    /// What may be written by those who have reserved it.
    reserved: AtomicUsize,
    /// Nothing is written any more, which whoever writes is told at once.
    has_ended: AtomicBool,
    waiting: AtomicUsize,
    changed: Notify,
    /// All that was ever reserved.
    admitted: AtomicU64,
    /// How much may be reserved in a second; zero where there is no such bound.
    rate: AtomicU64,
    begun: Instant,
    /// When the next may write where there is such a bound, in microseconds.
    next_at_us: AtomicU64,
}

/// Room for one write, until it is made: then it counts as what is held.
#[must_use]
pub struct Reservation {
    room: Room,
    bytes: usize,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Inner {
            bytes_max,
            held: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
            admitted: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            begun: Instant::now(),
            next_at_us: AtomicU64::new(0),
        }))
    }

    /// Reserves room, if there is so much and nobody is to wait. What would take more than half of it is taken to be that large: it could wait for
    /// ever, since a store keeps some rows in memory always.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        if self.0.rate.load(Ordering::Relaxed) > 0 && !self.0.has_ended.load(Ordering::Relaxed) {
            return None;
        }
        self.take(bytes)
    }

    fn take(&self, bytes: usize) -> Option<Reservation> {
        let bytes = bytes.min(self.0.bytes_max / 2);
        let held = self.0.held.load(Ordering::Acquire);
        let has_ended = self.0.has_ended.load(Ordering::Acquire);
        // Never more than there is, not even for a moment: somebody else would find no room, and be told of none.
        let taken = self.0.reserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, |reserved| {
            let fits = held.saturating_add(reserved).saturating_add(bytes) <= self.0.bytes_max;
            (fits || has_ended).then(|| reserved.saturating_add(bytes))
        });
        taken.ok()?;
        self.0.admitted.fetch_add(bytes as u64, Ordering::Relaxed);
        Some(Reservation { room: self.clone(), bytes })
    }

    /// Reserves room, and waits until there is so much and it is its turn.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        if let Some(turn) = self.turn(bytes) {
            sleep_until(turn).await;
        }
        if let Some(reservation) = self.take(bytes) {
            return reservation;
        }
        let _waiting = Waiting::new(self);
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(reservation) = self.take(bytes) {
                return reservation;
            }
            changed.await;
        }
    }

    /// The same for somebody who waits no longer than this. Where there is room no timer is needed.
    pub async fn reserve_within(&self, bytes: usize, patience: Duration) -> Result<Reservation, Elapsed> {
        match self.try_reserve(bytes) {
            Some(reservation) => Ok(reservation),
            None => timeout(patience, self.reserve(bytes)).await,
        }
    }

    /// When it is the turn of one who is to write so much, where there is a bound on how fast that may be.
    fn turn(&self, bytes: usize) -> Option<Instant> {
        let rate = self.0.rate.load(Ordering::Relaxed);
        if rate == 0 || self.0.has_ended.load(Ordering::Acquire) {
            return None;
        }
        let lasts_us = (bytes as u64).saturating_mul(1_000_000) / rate;
        let now_us = u64::try_from(self.0.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let next = |at_us: u64| Some(at_us.max(now_us).saturating_add(lasts_us));
        let at_us = self.0.next_at_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        Some(self.0.begun + Duration::from_micros(at_us.max(now_us)))
    }

    /// Says how much may be reserved in a second; without a number as much as there is room for.
    pub fn pace(&self, bytes_per_second: Option<u64>) {
        self.0.rate.store(bytes_per_second.map_or(0, |rate| rate.max(1)), Ordering::Relaxed);
    }

    /// All that was reserved since the beginning, in bytes.
    pub fn admitted(&self) -> u64 {
        self.0.admitted.load(Ordering::Relaxed)
    }

    /// Says what is in memory now.
    pub fn hold(&self, bytes: usize) {
        let before = self.0.held.swap(bytes, Ordering::AcqRel);
        if bytes < before {
            self.wake();
        }
    }

    /// What is in memory, in bytes.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Says that nothing is written any more: nobody waits, or ever will.
    pub fn end(&self) {
        self.0.has_ended.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    fn wake(&self) {
        if self.0.waiting.load(Ordering::Acquire) > 0 {
            self.0.changed.notify_waiters();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.0.reserved.fetch_sub(self.bytes, Ordering::AcqRel);
        self.room.wake();
    }
}

/// One who waits, until it does so no more.
struct Waiting<'a>(&'a Room);

impl<'a> Waiting<'a> {
    fn new(room: &'a Room) -> Self {
        room.0.waiting.fetch_add(1, Ordering::AcqRel);
        Self(room)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Polls a future once.
    fn is_ready<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_reserved_at_once_keeps_to_the_bound() {
        let room = Room::new(100);
        let first = room.try_reserve(40).unwrap();
        let second = room.try_reserve(40).unwrap();
        assert!(room.try_reserve(40).is_none());
        drop(first);
        assert!(room.try_reserve(40).is_some());
        room.hold(61);
        assert!(room.try_reserve(1).is_none());
        drop(second);
        assert!(room.try_reserve(39).is_some());
    }

    #[test]
    fn who_waits_is_let_in_when_there_is_room() {
        let room = Room::new(100);
        room.hold(90);
        let mut waits = std::pin::pin!(room.reserve(20));
        assert!(is_ready(waits.as_mut()).is_none());
        room.hold(85);
        assert!(is_ready(waits.as_mut()).is_none());
        room.hold(80);
        let reservation = is_ready(waits.as_mut()).unwrap();
        let mut next = std::pin::pin!(room.reserve(1));
        assert!(is_ready(next.as_mut()).is_none());
        drop(reservation);
        assert!(is_ready(next.as_mut()).is_some());
    }

    #[test]
    fn a_write_larger_than_all_room_is_let_in_where_little_is_held() {
        let room = Room::new(100);
        room.hold(51);
        assert!(room.try_reserve(1000).is_none());
        room.hold(50);
        let large = room.try_reserve(1000).unwrap();
        assert!(room.try_reserve(1000).is_none());
        drop(large);
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_a_pace_all_wait_a_little() {
        let room = Room::new(1_000_000);
        room.pace(Some(1000));
        assert!(room.try_reserve(1).is_none());
        let begun = Instant::now();
        for _ in 0..10 {
            drop(room.reserve(100).await);
        }
        let waited = begun.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_millis(920)).contains(&waited), "{waited:?}");
        room.pace(None);
        assert!(room.try_reserve(1).is_some());
        assert_eq!(room.admitted(), 1001);
    }

    #[test]
    fn nobody_waits_for_room_that_none_will_make() {
        let room = Room::new(100);
        room.hold(100);
        let mut waits = std::pin::pin!(room.reserve(20));
        assert!(is_ready(waits.as_mut()).is_none());
        room.end();
        assert!(is_ready(waits.as_mut()).is_some());
        assert!(room.try_reserve(20).is_some());
    }
}
