//! The allocator of the program, and the only unsafe code of Ombak's own.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_long;

use libmimalloc_sys as mimalloc;

/// What `malloc` aligns to, where the block is as large.
const NATURAL_ALIGNMENT: usize = 16;

/// Mimalloc. Requests allocate on one thread what another frees; the system's allocator takes three times as long over it.
///
/// The crate `mimalloc` would be the same but for its asking for an alignment every time: for most sizes that are no power of two
/// mimalloc then leaves its fast path. Of the 26,000 instructions of a put, allocating took 3,000 and takes 1,500.
pub struct Allocator;

/// The number of mimalloc's option `purge_delay`, in milliseconds, and what it is unless somebody has set it.
const PURGE_DELAY: mimalloc::mi_option_t = 15;
const PURGE_DELAY_DEFAULT_MS: c_long = 1000;
/// What it is while the server runs.
const PURGE_DELAY_SERVING_MS: c_long = 10_000;

/// Has freed memory go back to the system after ten seconds and not after one. Rows come and go by the megabyte, and memory
/// that went back has to be cleared when it is wanted again: a twentieth of the processor's time under a full load of puts.
pub fn give_back_late() {
    // SAFETY: options may be read and set at any time, by any number; of an unknown one nothing comes. Another value than the
    // default is somebody's wish (the variable `MIMALLOC_PURGE_DELAY`), or another option's.
    unsafe {
        if mimalloc::mi_option_get(PURGE_DELAY) == PURGE_DELAY_DEFAULT_MS {
            mimalloc::mi_option_set(PURGE_DELAY, PURGE_DELAY_SERVING_MS);
        }
    }
}

fn is_natural(size: usize, align: usize) -> bool {
    align <= NATURAL_ALIGNMENT && align <= size
}

// SAFETY: all of a block's life is mimalloc's: `mi_free` and `mi_realloc*` take blocks of any of its `mi_*alloc*`, whatever
// alignment they were asked for. Those without an alignment promise what C promises of `malloc`: a block that is aligned for
// whatever of a fundamental alignment (16 bytes on 64-bit systems) fits into it, which is what `is_natural` asks; moved by
// `mi_realloc`, it is as well aligned again. Each gives null when there is no memory, and none unwinds.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: takes any size, and any power of two to align to.
        unsafe {
            if is_natural(size, align) { mimalloc::mi_malloc(size) } else { mimalloc::mi_malloc_aligned(size, align) }
                .cast()
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        unsafe {
            if is_natural(size, align) { mimalloc::mi_zalloc(size) } else { mimalloc::mi_zalloc_aligned(size, align) }
                .cast()
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller says that the block came from here and is alive.
        unsafe { mimalloc::mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: as in `dealloc`; the old block stays alive where there is no memory for a new one.
        unsafe {
            if is_natural(new_size, align) {
                mimalloc::mi_realloc(block.cast(), new_size)
            } else {
                mimalloc::mi_realloc_aligned(block.cast(), new_size, align)
            }
            .cast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_keep_what_they_hold_when_they_grow() {
        for align in [1, 2, 8, 16, 32, 4096] {
            for size in [1, 7, 8, 15, 16, 17, 24, 48, 100, 1023, 1100, 70_000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the layout is of a size that is not zero, and the block is used within it.
                unsafe {
                    let block = Allocator.alloc_zeroed(layout);
                    assert!(block.addr().is_multiple_of(align), "{size} bytes aligned to {align}");
                    assert!(std::slice::from_raw_parts(block, size).iter().all(|&byte| byte == 0));
                    block.write_bytes(7, size);
                    let grown = Allocator.realloc(block, layout, 3 * size);
                    assert!(grown.addr().is_multiple_of(align), "{size} bytes aligned to {align}, grown");
                    assert!(std::slice::from_raw_parts(grown, size).iter().all(|&byte| byte == 7));
                    Allocator.dealloc(grown, Layout::from_size_align(3 * size, align).unwrap());
                }
            }
        }
    }

    #[test]
    fn the_option_that_is_set_is_the_purge_delay() {
        // SAFETY: reads an option. Its default tells it from its neighbours.
        let delay = unsafe { mimalloc::mi_option_get(PURGE_DELAY) };
        assert!([PURGE_DELAY_DEFAULT_MS, PURGE_DELAY_SERVING_MS].contains(&delay), "{delay}");
        give_back_late();
        // SAFETY: reads an option.
        assert_eq!(unsafe { mimalloc::mi_option_get(PURGE_DELAY) }, PURGE_DELAY_SERVING_MS);
    }
}
