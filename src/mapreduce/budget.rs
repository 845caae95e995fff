//! The memory that one job may take between its phases.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::JobError;
use crate::erlang::Term;

/// What is taken of a job's memory. Cloning gives another handle to the same account.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    max: usize,
}

/// Memory that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Budget,
    bytes: usize,
}

/// Terms on their way from one phase to the next, with the memory that they take.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) terms: Vec<Term>,
    pub(super) charge: Charge,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { used: Arc::new(AtomicUsize::new(0)), max }
    }

    /// Nothing yet.
    pub(super) fn charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }

    /// The terms as a batch.
    ///
    /// # Errors
    /// When there is no room for them.
    pub(super) fn batch(&self, terms: Vec<Term>) -> Result<Batch, JobError> {
        let mut charge = self.charge();
        charge.add(&terms)?;
        Ok(Batch { terms, charge })
    }
}

impl Charge {
    /// Takes the memory of these terms as well.
    ///
    /// # Errors
    /// When the job would have more than it may.
    pub(super) fn add(&mut self, terms: &[Term]) -> Result<(), JobError> {
        let bytes = terms.iter().map(Term::size_bytes).sum::<usize>();
        // The numbers guard no other memory, so their order with other accesses does not matter.
        let used = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if used.saturating_add(bytes) > self.budget.max {
            return Err(JobError::TooMuchMemory { max: self.budget.max });
        }
        Ok(())
    }

    /// Nothing yet, of the same memory.
    pub(super) fn another(&self) -> Self {
        self.budget.charge()
    }

    /// Takes over what another charge has taken.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_and_given_back() {
        let budget = Budget::new(3 * size_of::<Term>());
        let two = || vec![Term::Integer(1), Term::Integer(2)];
        let batch = budget.batch(two()).unwrap();
        assert!(matches!(budget.batch(two()), Err(JobError::TooMuchMemory { .. })));
        let mut charge = budget.charge();
        charge.absorb(batch.charge);
        assert!(budget.batch(two()).is_err());
        drop(charge);
        assert!(budget.batch(two()).is_ok());
    }
}
