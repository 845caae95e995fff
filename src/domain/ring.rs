//! Where Riak's ring would put a key. Ombak has no ring: clients may ask for it all the same (`kv.md` §13).

use sha1::{Digest, Sha1};

use super::key::{BucketName, ObjectName};

/// The partitions, by number, that hold an object's replicas on a ring of `ring_size`, in ring order.
///
/// `ring_size` is a power of two up to 1024. Where `bucket_only`, all keys of a bucket lie together.
pub fn partitions(name: &ObjectName, bucket_only: bool, ring_size: u32, n_val: u32) -> Vec<u32> {
    let ring_size = ring_size.max(1);
    let hash = Sha1::digest(placed_term(name, bucket_only));
    // The ring's ranges are 2^160 / ring_size long, so the first bits of the hash are the number of its range.
    let first_bits = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let range = (u64::from(first_bits) * u64::from(ring_size)) >> 32;
    (1..=u64::from(n_val)).map(|step| ((range + step) % u64::from(ring_size)) as u32).collect()
}

/// The Erlang term that Riak hashes, in external format.
fn placed_term(name: &ObjectName, bucket_only: bool) -> Vec<u8> {
    const VERSION: u8 = 131;
    const PAIR: [u8; 2] = [104, 2];
    const BINARY: u8 = 109;
    let mut term = vec![VERSION];
    let put = |term: &mut Vec<u8>, bytes: &[u8]| {
        term.push(BINARY);
        term.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        term.extend_from_slice(bytes);
    };
    let BucketName { bucket_type, bucket } = &name.bucket;
    if !bucket_only {
        term.extend_from_slice(&PAIR);
    }
    if !name.bucket.is_default_type() {
        term.extend_from_slice(&PAIR);
        put(&mut term, bucket_type);
    }
    put(&mut term, bucket);
    if !bucket_only {
        put(&mut term, &name.key);
    }
    term
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bucket_type: &'static str, bucket: &'static str, key: &'static str) -> ObjectName {
        ObjectName { bucket: BucketName { bucket_type: bucket_type.into(), bucket: bucket.into() }, key: key.into() }
    }

    #[test]
    fn keys_lie_where_riak_puts_them() {
        assert_eq!(partitions(&name("default", "foo", "bar"), false, 64, 3), [19, 20, 21]);
        assert_eq!(partitions(&name("default", "b", "k"), false, 64, 3), [28, 29, 30]);
        assert_eq!(partitions(&name("plain", "users", "alice"), false, 64, 3), [6, 7, 8]);
        // The partitions that the Erlang client's own test wants.
        assert_eq!(partitions(&name("default", "b", "f"), false, 64, 3), [52, 53, 54]);
    }

    #[test]
    fn the_keys_of_a_bucket_lie_together_where_only_the_bucket_counts() {
        let place = |key| partitions(&name("default", "b", key), true, 64, 1);
        assert_eq!(place("x"), place("y"));
    }

    #[test]
    fn the_ring_is_round() {
        let all = partitions(&name("default", "b", "k"), false, 8, 8);
        assert_eq!(all, [4, 5, 6, 7, 0, 1, 2, 3]);
    }
}
