//! Private memory for large buffers: `mmap(2)`, huge pages where the system has them, and the allocator's thresholds.
//!
//! # Safety
//! An `Anonymous` owns its address range until dropped and hands out a raw pointer; who may use the bytes when lies with
//! its holder.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::mem;
use core::ptr::{self, NonNull};
use core::time::Duration;

use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::time::{ClockId, clock_gettime};

use super::memory::{Mapping, PAGE};
use crate::atomic::{AtomicU32, Ordering};
use crate::error::{Error, Kind, Result};

const HUGE_PAGE: usize = 2 << 20;

/// Processor time that a huge page takes where small ones are the better choice. Some 0.1 ms is usual, 0.3 what small pages
/// take in its place; a virtual machine that must get it from its host first takes several ms, for memory that was
/// not in use lately, which small pages mostly were.
const SLOW: Duration = Duration::from_micros(700);
/// After a slow one, so many allocations do without huge pages.
const UNTRIED: u32 = 32;

/// Allocations to come that do without huge pages.
static SMALL: AtomicU32 = AtomicU32::new(0);

/// Private memory of this process, in whole pages.
#[derive(Debug)]
pub struct Anonymous {
    mapping: Mapping,
    /// In huge pages, for the most part.
    huge: bool,
}

impl Anonymous {
    /// At least `len` bytes, zero, with their pages there: taking them one by one at the first touch costs several times
    /// more than filling them.
    pub fn new(len: usize) -> Result<Self> {
        let none = || Error::new("allocate memory", Kind::OutOfMemory);
        let len = len.max(1).checked_next_multiple_of(PAGE).ok_or_else(none)?;
        let slack = if len < HUGE_PAGE { 0 } else { HUGE_PAGE - PAGE };
        let mapped = len.checked_add(slack).ok_or_else(none)?;
        // SAFETY: the kernel picks an unused range (null hint, no MAP_FIXED), so no existing memory is affected.
        let start = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), mapped, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }
        .map_err(|_| none())?
        .cast::<u8>();
        let skip = if slack == 0 { 0 } else { start.align_offset(HUGE_PAGE) };
        // SAFETY: `skip` is at most `slack`: both addresses lie in the mapping or at its end.
        let (base, end) = unsafe { (start.add(skip), start.add(skip + len)) };
        // SAFETY: what lies before and behind the range was mapped above and is used by nobody.
        unsafe {
            if skip > 0 {
                let _ = rustix::mm::munmap(start.cast::<c_void>(), skip);
            }
            if slack > skip {
                let _ = rustix::mm::munmap(end.cast::<c_void>(), slack - skip);
            }
        }
        let base = NonNull::new(base).ok_or_else(none)?;
        // SAFETY: of the mapping made above exactly this range is left, and nobody else knows of it.
        let mut memory = Self { mapping: unsafe { Mapping::from_raw(base, len) }, huge: false };
        memory.populate();
        Ok(memory)
    }

    /// Takes the pages: huge ones, where those are quick to be had.
    fn populate(&mut self) {
        let mut done = 0;
        if self.len() >= HUGE_PAGE {
            let small = SMALL.load(Ordering::Relaxed);
            if small > 0 {
                SMALL.store(small - 1, Ordering::Relaxed);
            } else {
                let _ = self.advise(0, self.len(), Advice::LinuxHugepage);
                let started = processor_time();
                let _ = self.advise(0, HUGE_PAGE, Advice::LinuxPopulateWrite);
                done = HUGE_PAGE;
                self.huge = true;
                if processor_time().saturating_sub(started) > SLOW {
                    SMALL.store(UNTRIED, Ordering::Relaxed);
                    self.huge = false;
                    let _ = self.advise(done, self.len() - done, Advice::LinuxNoHugepage);
                }
            }
        }
        let _ = self.advise(done, self.len() - done, Advice::LinuxPopulateWrite);
    }

    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.mapping.base()
    }

    /// The memory without its owner: it stays until somebody unmaps it.
    #[must_use]
    pub fn leak(self) -> NonNull<u8> {
        let base = self.base();
        mem::forget(self);
        base
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }

    /// Gives up the contents until `reclaim`: a forked child gets zeros in their place, so that they need not be copied when
    /// they are written again, and the kernel may take huge pages when memory is short. With small ones it would cost
    /// more to say so than to copy what comes next.
    pub fn offer(&self) {
        // Advice not taken only costs time.
        let _ = self.advise(0, self.len(), Advice::LinuxWipeOnFork);
        if self.huge {
            let _ = self.advise(0, self.len(), Advice::LinuxFree);
        }
    }

    /// Makes the contents matter again. On failure a forked child would not have them.
    pub fn reclaim(&self) -> Result<()> {
        self.advise(0, self.len(), Advice::LinuxKeepOnFork)
            .map_err(|errno| Error::os("keep memory across a fork", errno))
    }

    /// That the kernel is too old for an advice, or out of memory just now, is no error where its outcome is not looked at:
    /// pages come at the first touch, too.
    fn advise(&self, offset: usize, len: usize, advice: Advice) -> rustix::io::Result<()> {
        debug_assert!(offset + len <= self.len());
        // SAFETY: the range lies in this mapping. Advice changes no contents but of what `offer` has given up.
        unsafe { rustix::mm::madvise(self.base().as_ptr().add(offset).cast::<c_void>(), len, advice) }
    }
}

/// What this thread has used of a processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Makes the C library's allocator keep what is freed, up to 64 MiB, for what is allocated next: large blocks, which it
/// otherwise gives back to the system each time. Nothing where the environment sets its thresholds.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        if is_tuned(&["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"]) {
            return;
        }
        // SAFETY: sets two numbers of the allocator. 32 MiB is the largest threshold that it takes.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        }
    }
}

/// Makes all threads to come use the arena of the C library's allocator that is there: one of its own costs each of them
/// 128 MiB of address space and pages that nobody has touched. For processes whose threads seldom run at the same time.
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    if !is_tuned(&["MALLOC_ARENA_MAX", "MALLOC_ARENA_TEST"]) {
        // SAFETY: sets a number of the allocator, which looks at it when a thread allocates for the first time.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// Whether the environment says how the allocator is to behave.
#[cfg(target_env = "gnu")]
fn is_tuned(names: &[&str]) -> bool {
    names.iter().chain(&["GLIBC_TUNABLES"]).any(|name| std::env::var_os(name).is_some())
}

/// Gives what the C library's allocator keeps back to the system.
pub fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks and touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
