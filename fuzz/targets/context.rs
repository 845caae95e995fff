//! Bytes are no causal context, or one that its own bytes give back; with the checksum set right, so that it hides nothing.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ombak::domain::context::{CausalContext, ObjectIdentity};
use ombak::domain::dot::{Dot, Time};
use ombak::domain::key::{BucketName, ObjectName};
use ombak_fuzz::heap;

fuzz_target!(|input: &[u8]| heap::bounded(input.len(), || run(input)));

fn run(input: &[u8]) {
    let bucket = BucketName::new(None, Bytes::from_static(b"b"));
    let object = ObjectIdentity::of(&ObjectName { bucket, key: Bytes::from_static(b"k") });
    read(input, object);
    read(&[input, &crc32fast::hash(input).to_be_bytes()].concat(), object);
    // Behind the head of this object's contexts.
    let head = CausalContext::new().encode(object);
    let ours = [&head[..head.len() - 4], input].concat();
    read(&[&ours[..], &crc32fast::hash(&ours).to_be_bytes()].concat(), object);
}

fn read(bytes: &[u8], object: ObjectIdentity) {
    let Ok(context) = CausalContext::decode(bytes, || object) else { return };
    let encoded = context.encode(object);
    assert!(encoded.len() <= bytes.len().max(CausalContext::new().encode(object).len()));
    assert_eq!(CausalContext::decode(&encoded, || object).as_ref(), Ok(&context));
    assert!(context.entries().is_sorted_by(|(a, _), (b, _)| a < b));
    assert!(context.covers_all(&context) && context.covers_all(&CausalContext::new()));
    for &(actor, time) in context.entries() {
        assert!(context.covers(Dot { actor, time }));
        let mut clamped = context.clone();
        clamped.clamp_to_issued(actor, Time(time.0 / 2));
        assert!(context.covers_all(&clamped));
        assert!(time.0 == 0 || !clamped.covers(Dot { actor, time }));
        clamped.join(&context);
        assert_eq!(clamped, context);
    }
}
