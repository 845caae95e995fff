//! HyperLogLog: how many distinct elements were added, estimated from registers of a fixed number (`datatypes.md` §5.3;
//! Flajolet et al., *HyperLogLog*; Heule, Nunkesser, Hall, *HyperLogLog in Practice*).
//!
//! With precision p there are 2^p registers. An element's hash names one of them and gives it a *rank*; a register keeps
//! the greatest rank it was given. Hence any union of registers is their maximum, and adding twice changes nothing.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use bytes::Bytes;
use serde::Deserialize;
use sha1::{Digest, Sha1};

/// The precisions there are tables for.
pub const PRECISIONS: RangeInclusive<u8> = 4..=16;

/// How registers are packed into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Three bytes for each register that is not zero, in order: its index (big-endian), its rank.
    Sparse,
    /// Six bits for every register, in order, most significant first: 0.75 * 2^p bytes.
    Dense,
}

/// One actor's registers as its cell holds them: sparse while that is shorter than dense. An update that adds one element
/// rewrites them all, so this bound of 12 KiB at the usual precision of 14 is what an update costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    precision: u8,
    form: Form,
    packed: Bytes,
}

impl Registers {
    /// Registers from their stored parts; `None` when no [`Sketch::pack`] can have made these.
    pub fn from_packed(precision: u8, form: Form, packed: Bytes) -> Option<Self> {
        let size_fits = match form {
            Form::Sparse => packed.len().is_multiple_of(SPARSE_ENTRY_BYTES),
            Form::Dense => PRECISIONS.contains(&precision) && packed.len() == dense_size_bytes(precision),
        };
        if !PRECISIONS.contains(&precision) || !size_fits {
            return None;
        }
        let registers = Self { precision, form, packed };
        let mut next_index = 0;
        let mut is_valid = true;
        registers.for_each(|index, rank| {
            is_valid &= index >= next_index && index < 1 << precision && (1..=rank_max(precision)).contains(&rank);
            next_index = index + 1;
        });
        is_valid.then_some(registers)
    }

    /// The precision: there are two to its power of registers.
    pub fn precision(&self) -> u8 {
        self.precision
    }

    /// How [`packed`](Self::packed) is to be read.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The registers as bytes.
    pub fn packed(&self) -> &Bytes {
        &self.packed
    }

    /// Visits the registers that are not zero, in order: index and rank.
    fn for_each(&self, mut visit: impl FnMut(usize, u8)) {
        match self.form {
            Form::Sparse => {
                for entry in self.packed.chunks_exact(SPARSE_ENTRY_BYTES) {
                    visit(usize::from(u16::from_be_bytes([entry[0], entry[1]])), entry[2]);
                }
            }
            Form::Dense => {
                for (group, bytes) in self.packed.chunks_exact(3).enumerate() {
                    let ranks = [
                        bytes[0] >> 2,
                        (bytes[0] & 0x03) << 4 | bytes[1] >> 4,
                        (bytes[1] & 0x0f) << 2 | bytes[2] >> 6,
                        bytes[2] & 0x3f,
                    ];
                    for (offset, rank) in ranks.into_iter().enumerate().filter(|(_, rank)| *rank > 0) {
                        visit(group * 4 + offset, rank);
                    }
                }
            }
        }
    }
}

const SPARSE_ENTRY_BYTES: usize = 3;

fn dense_size_bytes(precision: u8) -> usize {
    (1 << precision) / 4 * 3
}

/// Only as many bits as the precision are searched for the first one, so ranks end one above.
fn rank_max(precision: u8) -> u8 {
    precision + 1
}

/// Registers to work with: one byte each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    precision: u8,
    ranks: Vec<u8>,
}

impl Sketch {
    /// All registers zero. A precision out of range becomes the nearest one there is.
    pub fn new(precision: u8) -> Self {
        let precision = precision.clamp(*PRECISIONS.start(), *PRECISIONS.end());
        Self { precision, ranks: vec![0; 1 << precision] }
    }

    /// The union of several actors' registers, at the lowest precision among them; `None` of none.
    pub fn union<'a>(of: impl Iterator<Item = &'a Registers> + Clone) -> Option<Self> {
        let mut union = Self::new(of.clone().map(Registers::precision).min()?);
        of.for_each(|registers| union.take_in(registers));
        Some(union)
    }

    /// Adds an element. Its SHA-1 is read from the most significant bit: first the index, then as many bits in which the
    /// rank is the place of the first one.
    pub fn add(&mut self, element: &[u8]) {
        let hash = Sha1::digest(element);
        let head = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        let index = head >> (u32::BITS - u32::from(self.precision));
        let rank = 1 + (head << self.precision).leading_zeros();
        // At most 33, so it fits.
        let rank = (rank as u8).min(rank_max(self.precision));
        self.raise(index as usize, rank);
    }

    /// Takes in an actor's registers. The lower of both precisions is kept.
    pub fn take_in(&mut self, registers: &Registers) {
        if registers.precision < self.precision {
            self.fold(registers.precision);
        }
        registers.for_each(|index, rank| {
            let (index, rank) = folded(index, rank, registers.precision, self.precision);
            self.raise(index, rank);
        });
    }

    fn fold(&mut self, precision: u8) {
        let mut lower = Self::new(precision);
        for (index, &rank) in self.ranks.iter().enumerate().filter(|(_, rank)| **rank > 0) {
            let (index, rank) = folded(index, rank, self.precision, precision);
            lower.raise(index, rank);
        }
        *self = lower;
    }

    fn raise(&mut self, index: usize, rank: u8) {
        self.ranks[index] = self.ranks[index].max(rank);
    }

    /// The registers for a cell.
    pub fn pack(&self) -> Registers {
        let used = self.ranks.iter().enumerate().filter(|(_, rank)| **rank > 0);
        let sparse_size = used.clone().count() * SPARSE_ENTRY_BYTES;
        let (form, packed) = if sparse_size < dense_size_bytes(self.precision) {
            // An index has at most 16 bits.
            let entry = |(index, &rank): (usize, &u8)| [(index >> 8) as u8, index as u8, rank];
            (Form::Sparse, used.flat_map(entry).collect::<Vec<u8>>())
        } else {
            let group =
                |ranks: &[u8]| [ranks[0] << 2 | ranks[1] >> 4, ranks[1] << 4 | ranks[2] >> 2, ranks[2] << 6 | ranks[3]];
            (Form::Dense, self.ranks.chunks_exact(4).flat_map(group).collect())
        };
        Registers { precision: self.precision, form, packed: packed.into() }
    }

    /// How many distinct elements were added, about: the standard error is 1.04 / sqrt(2^p).
    pub fn estimate(&self) -> u64 {
        let registers = self.ranks.len() as f64;
        let zeros = self.ranks.iter().filter(|rank| **rank == 0).count();
        // Every term is a power of two of at least 2^-17, so the sum is exact in any order.
        let sum: f64 = self.ranks.iter().map(|&rank| f64::from(1_u32 << rank).recip()).sum();
        let alpha = match self.precision {
            4 => 0.673,
            5 => 0.697,
            6 => 0.709,
            _ => 0.7213 / (1.0 + 1.079 / registers),
        };
        let table = &BIAS_TABLES[&self.precision];
        let raw = alpha * registers * registers / sum;
        let corrected = if raw <= 5.0 * registers { raw - table.bias_at(raw) } else { raw };
        let linear = if zeros > 0 { registers * (registers / zeros as f64).ln() } else { corrected };
        (if linear <= table.threshold { linear } else { corrected }).round() as u64
    }
}

/// Where a register of one precision lies in a lower or equal one, and its rank there: as if every element had been
/// hashed at that one. Riak keeps the index's low bits instead and then counts an element twice that is added again.
fn folded(index: usize, rank: u8, from: u8, to: u8) -> (usize, u8) {
    let lost_bits = from - to;
    let lost = index & ((1 << lost_bits) - 1);
    // The bits that leave the index are the first in which the new rank is looked for.
    let folded = match lost {
        0 => lost_bits + rank,
        _ => lost_bits - lost.ilog2() as u8,
    };
    (index >> lost_bits, folded.min(rank_max(to)))
}

/// What was measured of one precision's raw estimates.
#[derive(Deserialize)]
struct BiasTable {
    /// Linear counting is better up to here.
    threshold: f64,
    raw_estimate: Vec<f64>,
    /// The mean bias of each raw estimate.
    bias: Vec<f64>,
}

impl BiasTable {
    /// The mean bias of the six points that lie nearest; of two equally near the first. Not all tables are in order.
    fn bias_at(&self, raw: f64) -> f64 {
        let distance = |point: &f64| (point - raw).powi(2);
        let mut points: Vec<(f64, f64)> =
            self.raw_estimate.iter().map(distance).zip(self.bias.iter().copied()).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points[..6].iter().map(|(_, bias)| bias).sum::<f64>() / 6.0
    }
}

/// The tables by precision, as published.
static BIAS_TABLES: LazyLock<BTreeMap<u8, BiasTable>> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct File {
        precisions: BTreeMap<u8, BiasTable>,
    }
    let file: File = serde_json::from_str(include_str!("hll_bias.json")).expect("the tables are part of the program");
    file.precisions
});

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(precision: u8, elements: std::ops::Range<u32>) -> Sketch {
        let mut sketch = Sketch::new(precision);
        elements.for_each(|n| sketch.add(format!("e{n}").as_bytes()));
        sketch
    }

    #[test]
    fn an_element_raises_the_register_that_riak_raises() {
        let ranks = sketch(14, 0..1).ranks;
        assert_eq!(ranks.iter().enumerate().filter(|(_, rank)| **rank > 0).collect::<Vec<_>>(), [(8919, &1)]);
    }

    #[test]
    fn estimates_are_riaks() {
        for (elements, estimate) in [(0, 0), (1, 1), (1_000, 997), (15_000, 15_041), (120_000, 121_086)] {
            assert_eq!(sketch(14, 0..elements).estimate(), estimate, "{elements} elements");
        }
    }

    #[test]
    fn estimates_stay_within_five_standard_errors() {
        for precision in PRECISIONS {
            for elements in [1 << precision, 8 << precision.min(12)] {
                let estimate = sketch(precision, 0..elements).estimate() as f64;
                let error = (estimate / f64::from(elements) - 1.0).abs();
                assert!(
                    error < 5.0 * 1.04 / f64::from(1_u32 << precision).sqrt(),
                    "{elements} at {precision}: {estimate}"
                );
            }
        }
    }

    #[test]
    fn every_precision_has_a_table() {
        assert!(BIAS_TABLES.keys().copied().eq(PRECISIONS));
        for table in BIAS_TABLES.values() {
            assert!(table.raw_estimate.len() == table.bias.len() && table.bias.len() >= 6);
        }
    }

    #[test]
    fn folding_equals_hashing_at_the_lower_precision() {
        for from in PRECISIONS {
            let registers = sketch(from, 0..3_000).pack();
            for to in *PRECISIONS.start()..=from {
                let mut folded = Sketch::new(to);
                folded.take_in(&registers);
                assert_eq!(folded, sketch(to, 0..3_000), "from {from} to {to}");
                let mut folded = sketch(from, 0..3_000);
                folded.take_in(&sketch(to, 0..10).pack());
                assert_eq!(folded, sketch(to, 0..3_000), "from {from} into {to}");
            }
        }
    }

    #[test]
    fn elements_added_again_after_folding_are_not_counted_twice() {
        let mut lower = Sketch::new(10);
        lower.take_in(&sketch(14, 0..1_000).pack());
        let folded = lower.estimate();
        (0..1_000).for_each(|n| lower.add(format!("e{n}").as_bytes()));
        assert_eq!((folded, lower.estimate()), (965, 965));
    }

    #[test]
    fn a_union_is_what_one_sketch_of_everything_is() {
        let (left, right) = (sketch(14, 0..300).pack(), sketch(12, 200..9_000).pack());
        assert_eq!(Sketch::union([&left, &right].into_iter()), Some(sketch(12, 0..9_000)));
        assert_eq!(Sketch::union([&right, &left].into_iter()), Some(sketch(12, 0..9_000)));
        assert_eq!(Sketch::union([].into_iter()), None);
    }

    #[test]
    fn packed_registers_come_back_and_stay_small() {
        for precision in PRECISIONS {
            for (elements, form) in [(0, Form::Sparse), (3, Form::Sparse), (1 << precision, Form::Dense)] {
                let sketch = sketch(precision, 0..elements);
                let packed = sketch.pack();
                assert_eq!(packed.form(), form);
                assert!(packed.packed().len() <= dense_size_bytes(precision));
                let read = Registers::from_packed(precision, form, packed.packed().clone()).unwrap();
                assert_eq!(Sketch::union([&read].into_iter()), Some(sketch));
            }
        }
        assert_eq!(dense_size_bytes(14), 12 * 1024);
    }

    #[test]
    fn bytes_that_are_no_registers_are_refused() {
        let refused = |precision, form, bytes: &[u8]| {
            assert_eq!(Registers::from_packed(precision, form, Bytes::copy_from_slice(bytes)), None, "{bytes:?}");
        };
        let dense = sketch(4, 0..16).pack();
        for end in 0..dense.packed().len() {
            refused(4, Form::Dense, &dense.packed()[..end]);
        }
        refused(3, Form::Dense, &[0; 6]);
        refused(17, Form::Sparse, &[]);
        refused(255, Form::Dense, &[]);
        refused(4, Form::Dense, &[0xff; 12]);
        refused(4, Form::Sparse, &[0, 1]);
        refused(4, Form::Sparse, &[0, 16, 1]);
        refused(4, Form::Sparse, &[0, 1, 6]);
        refused(4, Form::Sparse, &[0, 1, 0]);
        refused(4, Form::Sparse, &[0, 2, 1, 0, 1, 1]);
        refused(4, Form::Sparse, &[0, 1, 1, 0, 1, 1]);
    }
}
