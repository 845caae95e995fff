//! Bounds on memory: what one input may take, and what all of them may leave behind.

use std::alloc::System;
use std::panic;
use std::sync::{Once, OnceLock};

use cap::Cap;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// What any input may take, however short it is: an engine and a connection begin with tables of some size.
const TAKEN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What each byte of an input may take besides. An empty message in a list costs two bytes and becomes a struct.
const TAKEN_BYTES_PER_INPUT_BYTE_MAX: usize = 1024;
/// What may remain after the last input that did not remain after the first. Over a million inputs that is eight bytes each.
const LEFT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Runs one input. An allocation beyond the bounds fails, which ends the process; so does memory that is never given back.
///
/// # Panics
/// When more has remained over all inputs than may.
pub fn bounded(input_bytes: usize, run: impl FnOnce()) {
    static LEFT_BY_FIRST: OnceLock<usize> = OnceLock::new();
    static TELLING: Once = Once::new();
    TELLING.call_once(tell_without_limit);
    let limit = HEAP.allocated() + TAKEN_BYTES_MAX + TAKEN_BYTES_PER_INPUT_BYTE_MAX * input_bytes;
    HEAP.set_limit(limit).expect("the limit lies above what is allocated");
    run();
    HEAP.set_limit(usize::MAX).expect("there is no limit above");
    let left = HEAP.allocated();
    let first = *LEFT_BY_FIRST.get_or_init(|| left);
    assert!(left <= first + LEFT_BYTES_MAX, "{left} bytes remain, {first} did after the first input");
}

/// A panic's message and backtrace take more memory than an input may.
fn tell_without_limit() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        HEAP.set_limit(usize::MAX).expect("there is no limit above");
        tell(panic);
    }));
}
