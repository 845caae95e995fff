//! Keys and values, as `ombak bench` draws them.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fastrand::Rng;

const TEXT: &[u8] = br#"{"name":"Ombak","state":"active","visits":1024,"tags":["a","b"]},"#;

/// The name of an object.
pub fn name_of_key(key: u64) -> Bytes {
    format!("key-{key:012}").into()
}

/// Values that are random in part, and else text that repeats.
pub struct Values {
    text: Vec<u8>,
    random_bytes: usize,
}

impl Values {
    /// Of a size, and so much of it random.
    pub fn new(size: usize, random_percent: u8) -> Self {
        let text = TEXT.iter().copied().cycle().take(size).collect();
        Self { text, random_bytes: size * usize::from(random_percent) / 100 }
    }

    /// A value that no other is like.
    pub fn next(&self, random: &mut Rng) -> Bytes {
        let mut value = self.text.clone();
        random.fill(&mut value[..self.random_bytes]);
        value.into()
    }
}

/// Hands out each number below a count once, in an order that jumps about.
pub struct EachOnce {
    count: u64,
    step: u64,
    taken: AtomicU64,
}

impl EachOnce {
    /// So many numbers, and more than none.
    pub fn new(count: u64) -> Self {
        let mut step = ((count as f64 * 0.618_033_988_75) as u64).max(1);
        while greatest_common_divisor(count, step) != 1 {
            step -= 1;
        }
        Self { count, step, taken: AtomicU64::new(0) }
    }

    /// The next number, if there is another.
    pub fn next(&self) -> Option<u64> {
        let at = self.taken.fetch_add(1, Ordering::Relaxed);
        let number = u128::from(at) * u128::from(self.step) % u128::from(self.count);
        (at < self.count).then_some(number as u64)
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
