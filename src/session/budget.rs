//! What all connections together may hold in memory for their requests and replies.
//!
//! Small frames and replies are counted by the request, and a request's share ends when its reply may be written: so no peer,
//! however slow it reads, takes another one's. Large ones are counted by their bytes until they are read or written whole.
//! Who is too large for what is left waits, for those before it or until they are cut for being slow; the small pass by.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Frames and replies up to this size, in bytes, are small.
pub(super) const SMALL_BYTES_MAX: usize = 64 * 1024;
/// What one permit of the bytes stands for.
const BYTES_PER_PERMIT: usize = 1024;

/// The budget. Cloning gives another handle to the same.
#[derive(Clone)]
pub(super) struct Budget {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    permits_max: u32,
}

/// A part of the budget, which is given back when this is dropped.
#[must_use]
#[derive(Debug, Default)]
pub(super) struct Share(Option<OwnedSemaphorePermit>);

impl Share {
    /// Whether it is none.
    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl Budget {
    pub(super) fn new(requests_max: usize, buffered_bytes_max: usize) -> Self {
        let permits_max = u32::try_from(buffered_bytes_max / BYTES_PER_PERMIT).unwrap_or(u32::MAX).max(1);
        Self {
            requests: Arc::new(Semaphore::new(requests_max.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(permits_max as usize)),
            permits_max,
        }
    }

    /// Waits until another request may be in flight.
    pub(super) async fn request(&self) -> Share {
        // Nobody closes the semaphores.
        Share(self.requests.clone().acquire_owned().await.ok())
    }

    fn permits(&self, size_bytes: usize) -> u32 {
        // What is larger than all there is takes it all.
        u32::try_from(size_bytes.div_ceil(BYTES_PER_PERMIT)).unwrap_or(u32::MAX).min(self.permits_max)
    }

    /// Waits until so many bytes may be held.
    pub(super) async fn bytes(&self, size_bytes: usize) -> Share {
        Share(self.bytes.clone().acquire_many_owned(self.permits(size_bytes)).await.ok())
    }

    /// The same at once, or not at all.
    pub(super) fn try_bytes(&self, size_bytes: usize) -> Option<Share> {
        self.bytes.clone().try_acquire_many_owned(self.permits(size_bytes)).ok().map(|permit| Share(Some(permit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_given_back_may_be_taken_again() {
        let budget = Budget::new(1, 4096);
        let three = budget.try_bytes(2049).unwrap();
        assert!(budget.try_bytes(1025).is_none());
        let one = budget.try_bytes(1).unwrap();
        drop(three);
        assert!(budget.try_bytes(3072).is_some());
        drop(one);
        // More than there is takes all.
        let all = budget.bytes(1_000_000).await;
        assert!(budget.try_bytes(1).is_none());
        drop(all);
        assert!(budget.try_bytes(1).is_some());
        let request = budget.request().await;
        let mut next = std::pin::pin!(budget.request());
        assert!(poll_once(next.as_mut()).is_none());
        drop(request);
        assert!(poll_once(next.as_mut()).is_some());
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
