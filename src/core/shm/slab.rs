//! Slabs: ranges of a growing file, handed out to a process, reused warm, given back to the system.
//!
//! Every slab has a descriptor that stays for ever; its memory comes and goes. Slabs of one size class are reused last
//! in, first out, because touching fresh pages costs ten times as much as copying into warm ones. The lists of free
//! slabs are derived from the descriptors: after a death they are made anew (`sweep`), not repaired.
//!
//! | descriptor state   | who leaves it                     | what is left if that process dies there                        |
//! |--------------------|-----------------------------------|----------------------------------------------------------------|
//! | free               | any `allocate`, memory lock held  |                                                                |
//! | building, owner    | the owner: publishes or frees it  | a slab nobody refers to, until the sweep finds the owner dead  |
//! | queued, position   | the taker of the record there     | in use as long as the record is in the queue, free afterwards  |
//! | leased, owner      | the owner: frees it               | as queued while the record is there; then as building          |
//! | part of the ring   | whoever trims the ring            | in use as long as the ring's table names it                    |
//!
//! The memory lock covers the lists, the counts and the making of descriptors, never the filling of a slab.
//!
//! # Safety
//! Descriptors are atomics at checked offsets of the file. What lies in a slab belongs to whoever the state says.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::time::Duration;

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::clock::Deadline;
use crate::error::{Error, Kind, Result};
use crate::shm::growing::{self, Growing};
use crate::sys::memory::PAGE;
use crate::sys::robust::{Guard, RobustMutex};

/// The smallest class; each doubling has four classes.
const SMALLEST: u64 = 16 << 10;
const CLASSES: usize = 96;
/// Descriptors in the first chunk; each further chunk holds twice as many.
pub const FIRST_CHUNK: usize = 8;
const CHUNKS: usize = 24;
/// The largest slab: 128 GiB.
pub const LARGEST: u64 = SMALLEST << 23;

const _: () = assert!(LARGEST <= growing::LIMIT / 4);

pub const FREE: u32 = 0;
pub const BUILDING: u32 = 1;
pub const QUEUED: u32 = 2;
pub const LEASED: u32 = 3;
pub const RING: u32 = 4;

/// From this length on, fresh memory is written to by a system call. Less is soon used again, and then lacks its page tables.
const WRITTEN: u64 = 4 << 20;

/// How long a section of the memory lock may keep others waiting before they give up (its holder was stopped).
const PATIENCE: Duration = Duration::from_secs(10);

/// The process that holds a slab, as the word of its identity.
pub type Owner = u64;

#[repr(C)]
#[derive(Debug)]
pub struct Descriptor {
    pub state: AtomicU32,
    class: AtomicU32,
    owner: AtomicU64,
    /// The next free slab of the class, plus one.
    next: AtomicU32,
    spare: [AtomicU32; 3],
    offset: AtomicU64,
    /// Bytes that have memory, from the start.
    backed: AtomicU64,
    /// Where in the ring the record lies that refers to it.
    pub position: AtomicU64,
    reserved: AtomicU64,
}

/// The allocator's words, at a place its user chooses.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Header {
    mutex: [AtomicU64; 8],
    /// Everything from here to the end of the file is unused.
    end: AtomicU64,
    /// Descriptors made.
    made: AtomicU64,
    /// Bytes of memory that free slabs hold.
    idle: AtomicU64,
    /// Bytes of fresh memory asked for since the last sweep, and of slabs that had a living owner then.
    fresh: AtomicU64,
    /// A process died in the middle of something: a sweep may find slabs that nobody refers to.
    pub untidy: AtomicU32,
    spare: AtomicU32,
    chunks: [AtomicU64; CHUNKS],
    warm: [AtomicU32; CLASSES],
    bare: [AtomicU32; CLASSES],
    /// How often each class was asked for.
    asked: [AtomicU32; CLASSES],
    first_chunk: [Descriptor; FIRST_CHUNK],
}

#[derive(Clone, Copy, Debug)]
pub struct Slabs<'a> {
    pub file: &'a Growing,
    pub header: &'a Header,
    pub mapped: &'a Mapped,
}

/// The first slabs whose pages this process has mapped, so that filling one takes no page faults. Not shared, and a hint:
/// where it is wrong, there are faults, or advice that changes nothing.
#[derive(Debug, Default)]
pub struct Mapped([AtomicU64; 4]);

impl Mapped {
    /// Adds slab `index`; whether it was there.
    fn insert(&self, index: u32) -> bool {
        let Some((word, bit)) = self.place(index) else { return false };
        word.load(Ordering::Relaxed) & bit != 0 || word.fetch_or(bit, Ordering::Relaxed) & bit != 0
    }

    fn remove(&self, index: u32) {
        if let Some((word, bit)) = self.place(index) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    fn place(&self, index: u32) -> Option<(&AtomicU64, u64)> {
        Some((self.0.get(index as usize / 64)?, 1 << (index % 64)))
    }
}

/// A slab that this process holds.
#[derive(Clone, Copy, Debug)]
pub struct Slab {
    pub index: u32,
    pub offset: u64,
}

impl Header {
    /// Prepares the words of a new file, of which the first `taken` bytes, this header among them, are in use.
    ///
    /// # Safety
    /// The header is zero, in memory that will be shared, and nobody else uses it yet.
    pub unsafe fn initialise(&self, taken: u64) -> Result<()> {
        self.end.store(taken, Ordering::Relaxed);
        // SAFETY: as promised by the caller; the words are the mutex's place.
        unsafe { RobustMutex::initialise(NonNull::from(&self.mutex).cast()) }
    }
}

impl Descriptor {
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner.load(Ordering::Relaxed)
    }

    /// Bytes that can be used.
    #[must_use]
    pub fn backed(&self) -> u64 {
        self.backed.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Hands it to the process that takes its record from the queue.
    pub fn lease(&self, owner: Owner) {
        self.owner.store(owner, Ordering::Relaxed);
        self.state.store(LEASED, Ordering::Release);
    }

    /// Ties it to the record about to be committed at `position`.
    pub fn queue(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
        self.state.store(QUEUED, Ordering::Release);
    }
}

impl<'a> Slabs<'a> {
    /// A slab of at least `len` bytes with memory behind all of them, `BUILDING` and owned by `owner`.
    pub fn allocate(&self, len: u64, owner: Owner) -> Result<Slab> {
        self.claim(len, owner, |start, fresh| self.file.allocate(start, fresh))
    }

    /// As `allocate`, for `parts` of `len` bytes in all. `true`: they are in it, because it had no memory yet.
    pub fn allocate_for(&self, parts: &[&[u8]], len: u64, owner: Owner) -> Result<(Slab, bool)> {
        if len < WRITTEN {
            return Ok((self.allocate(len, owner)?, false));
        }
        let mut filled = false;
        let slab = self.claim(len, owner, |start, fresh| {
            filled = fresh >= len;
            if filled { self.file.allocate_filled(start, fresh, parts) } else { self.file.allocate(start, fresh) }
        })?;
        if filled {
            self.mapped.remove(slab.index);
        } else if !self.mapped.insert(slab.index) {
            self.file.touch(slab.offset, len);
        }
        Ok((slab, filled))
    }

    /// A slab of at least `len` bytes; what it lacks of them, from an offset on, `back` makes usable.
    fn claim(&self, len: u64, owner: Owner, back: impl FnOnce(u64, u64) -> Result<()>) -> Result<Slab> {
        if len > LARGEST {
            return Err(Error::new("allocate shared memory", Kind::OutOfMemory));
        }
        let class = class(len);
        let (index, descriptor, end) = {
            let guard = self.lock()?;
            self.header.asked[class].fetch_add(1, Ordering::Relaxed);
            let taken = match self.pop(&self.header.warm[class])? {
                Some(taken) => Some(taken),
                None => self.pop(&self.header.bare[class])?,
            };
            let (index, descriptor, end) = match taken {
                Some((index, descriptor)) => (index, descriptor, self.header.end.load(Ordering::Relaxed)),
                None => self.make(class)?,
            };
            let idle = self.header.idle.load(Ordering::Relaxed);
            self.header.idle.store(idle.saturating_sub(descriptor.backed()), Ordering::Relaxed);
            descriptor.owner.store(owner, Ordering::Relaxed);
            descriptor.state.store(BUILDING, Ordering::Release);
            drop(guard);
            (index, descriptor, end)
        };
        // Outside the lock: the kernel clears the pages here, a second for every few GiB.
        let offset = descriptor.offset();
        let backed = descriptor.backed();
        let wanted = len.next_multiple_of(PAGE as u64);
        if backed < wanted {
            // Before it is: should this process die in between, the sweep has something to look for.
            self.header.fresh.fetch_add(wanted - backed, Ordering::Relaxed);
            if let Err(error) = back(offset + backed, wanted - backed) {
                self.undo(index, end)?;
                return Err(error);
            }
            descriptor.backed.store(wanted, Ordering::Release);
        }
        Ok(Slab { index, offset })
    }

    /// Frees a slab this process holds; `keep` its memory warm, or give it back to the system.
    pub fn free(&self, index: u32, keep: bool) -> Result<()> {
        let descriptor = self.descriptor(index)?;
        if !keep {
            // A process that dies here leaves it to the sweep: it is still building or leased.
            let class = descriptor.class.load(Ordering::Relaxed) as usize;
            // The whole class: a failed allocation may have got part of what it asked for.
            self.file.give_back(descriptor.offset(), size(class))?;
        }
        let _guard = self.lock()?;
        if !keep {
            descriptor.backed.store(0, Ordering::Relaxed);
        }
        descriptor.state.store(FREE, Ordering::Release);
        self.push(index, descriptor);
        Ok(())
    }

    /// Frees a slab whose memory could not be had; the file was taken up to `end` before it. The newest one also gives
    /// up its range, so that an absurd request does not push everything after it beyond the file size limit.
    fn undo(&self, index: u32, end: u64) -> Result<()> {
        let descriptor = self.descriptor(index)?;
        let class = descriptor.class.load(Ordering::Relaxed) as usize;
        // The kernel may have granted a part.
        self.file.give_back(descriptor.offset(), size(class))?;
        let _guard = self.lock()?;
        descriptor.backed.store(0, Ordering::Relaxed);
        descriptor.state.store(FREE, Ordering::Release);
        if index + 1 == self.made() {
            self.header.made.store(u64::from(index), Ordering::Release);
            self.header.end.store(end, Ordering::Relaxed);
        } else {
            self.push(index, descriptor);
        }
        Ok(())
    }

    /// The descriptor of slab `index`.
    #[inline]
    pub fn descriptor(&self, index: u32) -> Result<&'a Descriptor> {
        let (chunk, within) = chunk_of(index);
        let address = if chunk == 0 {
            NonNull::from(&self.header.first_chunk[within])
        } else {
            let start = self.header.chunks.get(chunk).map_or(0, |offset| offset.load(Ordering::Acquire));
            if start == 0 {
                return Err(Error::corrupt("reach shared memory", "there is no such slab"));
            }
            let each = size_of::<Descriptor>() as u64;
            self.file.pointer(start + within as u64 * each, each)?.cast()
        };
        // SAFETY: in bounds and aligned; all fields are atomics, and the file stays mapped as long as `self.file`.
        Ok(unsafe { address.as_ref() })
    }

    /// Bytes of memory that free slabs hold.
    #[must_use]
    pub fn idle(&self) -> u64 {
        self.header.idle.load(Ordering::Relaxed)
    }

    /// Bytes of memory that a sweep may find without an owner: asked for since the last, or owned then.
    #[must_use]
    pub fn fresh(&self) -> u64 {
        self.header.fresh.load(Ordering::Relaxed)
    }

    /// Whether a slab for `len` bytes can be had without touching fresh memory, as far as one can see without the lock.
    #[must_use]
    pub fn has_warm(&self, len: u64) -> bool {
        len <= LARGEST && self.header.warm[class(len)].load(Ordering::Relaxed) != 0
    }

    /// How often slabs of the class of `index` were asked for, and the size of that class.
    pub fn demand(&self, index: u32) -> Result<(u32, u64)> {
        let class = self.descriptor(index)?.class.load(Ordering::Relaxed) as usize;
        let asked = self.header.asked.get(class).map_or(0, |asked| asked.load(Ordering::Relaxed));
        Ok((asked, size(class.min(CLASSES - 1))))
    }

    /// Frees every slab that is not `live` and makes the lists anew. The caller keeps others from changing what `live`
    /// looks at.
    pub fn sweep(&self, mut live: impl FnMut(u32, &Descriptor) -> bool) -> Result<()> {
        let _guard = self.lock()?;
        self.header.fresh.store(0, Ordering::Relaxed);
        for index in 0..self.made() {
            let descriptor = self.descriptor(index)?;
            let state = descriptor.state.load(Ordering::Acquire);
            if state == FREE {
                continue;
            }
            let whole = size(descriptor.class.load(Ordering::Relaxed) as usize);
            if live(index, descriptor) {
                if state == BUILDING || state == LEASED {
                    // Its owner may die yet.
                    self.header.fresh.fetch_add(whole, Ordering::Relaxed);
                }
                continue;
            }
            if descriptor.backed() == 0 {
                // It may have got some when its owner died.
                self.file.give_back(descriptor.offset(), whole)?;
            }
            descriptor.state.store(FREE, Ordering::Release);
        }
        self.relist()
    }

    /// Gives the memory of free slabs back to the system until no more than `keep` bytes are left warm.
    pub fn trim(&self, keep: u64) -> Result<()> {
        if self.idle() <= keep {
            return Ok(());
        }
        let _guard = self.lock()?;
        // Large classes first: the fewest calls for the most memory.
        for class in (0..CLASSES).rev() {
            while self.idle() > keep {
                let Some((index, descriptor)) = self.pop(&self.header.warm[class])? else { break };
                let idle = self.idle();
                self.file.give_back(descriptor.offset(), descriptor.backed())?;
                self.header.idle.store(idle.saturating_sub(descriptor.backed()), Ordering::Relaxed);
                descriptor.backed.store(0, Ordering::Relaxed);
                self.push(index, descriptor);
            }
        }
        Ok(())
    }

    fn made(&self) -> u32 {
        self.header.made.load(Ordering::Acquire) as u32
    }

    fn lock(&self) -> Result<Guard<'a>> {
        // SAFETY: `Header::initialise` made the mutex there, and the header outlives `self`.
        let mutex = unsafe { RobustMutex::at(NonNull::from(&self.header.mutex).cast()) };
        let guard = mutex
            .lock(Deadline::after(PATIENCE))?
            .ok_or_else(|| Error::os("lock shared memory: its holder is stopped", rustix::io::Errno::TIMEDOUT))?;
        if guard.owner_died() {
            self.header.untidy.store(1, Ordering::Relaxed);
            self.relist()?;
        }
        Ok(guard)
    }

    /// Makes the lists of free slabs from the descriptors.
    fn relist(&self) -> Result<()> {
        for head in self.header.warm.iter().chain(&self.header.bare) {
            head.store(0, Ordering::Relaxed);
        }
        self.header.idle.store(0, Ordering::Relaxed);
        for index in 0..self.made() {
            let descriptor = self.descriptor(index)?;
            if descriptor.state.load(Ordering::Acquire) == FREE {
                self.push(index, descriptor);
            }
        }
        Ok(())
    }

    fn push(&self, index: u32, descriptor: &Descriptor) {
        let class = (descriptor.class.load(Ordering::Relaxed) as usize).min(CLASSES - 1);
        let backed = descriptor.backed();
        let head = if backed > 0 { &self.header.warm[class] } else { &self.header.bare[class] };
        let idle = self.idle();
        self.header.idle.store(idle + backed, Ordering::Relaxed);
        descriptor.next.store(head.load(Ordering::Relaxed), Ordering::Relaxed);
        head.store(index + 1, Ordering::Release);
    }

    /// Takes the first slab off a list. It stays `FREE`, so that a death before it is owned gives it back.
    fn pop(&self, head: &AtomicU32) -> Result<Option<(u32, &'a Descriptor)>> {
        let Some(index) = head.load(Ordering::Acquire).checked_sub(1) else { return Ok(None) };
        let descriptor = self.descriptor(index)?;
        head.store(descriptor.next.load(Ordering::Relaxed), Ordering::Release);
        Ok(Some((index, descriptor)))
    }

    /// A new descriptor and its range; also where the file was taken to before the range.
    fn make(&self, class: usize) -> Result<(u32, &'a Descriptor, u64)> {
        let index = self.made();
        let (chunk, within) = chunk_of(index);
        if chunk >= CHUNKS {
            return Err(Error::new("allocate shared memory", Kind::OutOfMemory));
        }
        if chunk > 0 && within == 0 {
            let len = ((FIRST_CHUNK << chunk) * size_of::<Descriptor>()) as u64;
            let offset = self.reserve(len);
            self.file.allocate(offset, len)?;
            self.header.chunks[chunk].store(offset, Ordering::Release);
        }
        let descriptor = self.descriptor(index)?;
        let end = self.header.end.load(Ordering::Relaxed);
        descriptor.class.store(class as u32, Ordering::Relaxed);
        descriptor.offset.store(self.reserve(size(class)), Ordering::Relaxed);
        descriptor.backed.store(0, Ordering::Relaxed);
        descriptor.state.store(FREE, Ordering::Relaxed);
        self.header.made.store(u64::from(index) + 1, Ordering::Release);
        Ok((index, descriptor, end))
    }

    /// Takes a range at the end of the file. What a dead process had reserved is lost as a range, not as memory.
    fn reserve(&self, len: u64) -> u64 {
        let len = len.next_multiple_of(PAGE as u64);
        let offset = growing::place(self.header.end.load(Ordering::Relaxed), len);
        self.header.end.store(offset + len, Ordering::Relaxed);
        offset
    }
}

/// The smallest class that holds `len` bytes, at most `LARGEST`.
fn class(len: u64) -> usize {
    if len <= SMALLEST {
        return 0;
    }
    // Four steps to each doubling: `step` is a quarter of the power of two below `len`.
    let doubling = (len - 1).ilog2();
    let step = 1_u64 << (doubling - 2);
    let quarter = (len - 1 - (1 << doubling)) / step;
    (u64::from(doubling - SMALLEST.ilog2()) * 4 + quarter + 1) as usize
}

/// The size of a class.
fn size(class: usize) -> u64 {
    let (doubling, quarter) = (class / 4, class as u64 % 4);
    let base = SMALLEST << doubling;
    base + quarter * (base / 4)
}

fn chunk_of(index: u32) -> (usize, usize) {
    let index = index as usize;
    let chunk = (index / FIRST_CHUNK + 1).ilog2() as usize;
    (chunk, index - FIRST_CHUNK * ((1 << chunk) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::sys::memory;

    const ME: Owner = 1;

    fn file() -> Growing {
        let file = Growing::create("rsmp-test", 2 * PAGE).expect("file");
        header(&file);
        // SAFETY: fresh, zero, and this test's alone.
        unsafe { header(&file).initialise(2 * PAGE as u64) }.expect("mutex");
        file
    }

    fn header(file: &Growing) -> &Header {
        const { assert!(size_of::<Header>() <= 2 * PAGE) };
        // SAFETY: the first two pages are allocated, and all fields are atomics.
        unsafe { file.first().cast().as_ref() }
    }

    fn slabs<'a>(file: &'a Growing, mapped: &'a Mapped) -> Slabs<'a> {
        Slabs { file, header: header(file), mapped }
    }

    #[test]
    fn classes_hold_what_they_say() {
        for len in [1, SMALLEST, SMALLEST + 1, 20 << 10, (20 << 10) + 1, 65536, 65537, (3 << 30) + 5, LARGEST] {
            let class = class(len);
            assert!(size(class) >= len, "{len}");
            assert!(class == 0 || size(class - 1) < len, "{len}");
            assert!(class < CLASSES);
        }
        assert_eq!(size(class(65536)), 65536);
    }

    #[test]
    fn slabs_are_apart_and_reused_last_in_first_out() {
        let file = file();
        let mapped = Mapped::default();
        let slabs = slabs(&file, &mapped);
        let taken: Vec<_> = (1..200).map(|n| (n * 1000, slabs.allocate(n * 1000, ME).expect("slab"))).collect();
        let mut ranges: Vec<_> = taken.iter().map(|(len, slab)| (slab.offset, slab.offset + len)).collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert_eq!(slabs.idle(), 0);
        for (_, slab) in &taken {
            slabs.free(slab.index, true).expect("free");
        }
        let (len, last) = taken[198];
        let again = slabs.allocate(len, ME).expect("slab");
        assert_eq!(again.index, last.index);
        slabs.trim(0).expect("trim");
        assert_eq!(slabs.idle(), 0);
    }

    #[test]
    fn a_sweep_frees_what_nobody_refers_to() {
        let file = file();
        let mapped = Mapped::default();
        let slabs = slabs(&file, &mapped);
        let kept = slabs.allocate(20_000, ME).expect("slab");
        let lost = slabs.allocate(20_000, ME).expect("slab");
        slabs.sweep(|index, _| index == kept.index).expect("sweep");
        assert_eq!(slabs.allocate(20_000, ME).expect("slab").index, lost.index);
        assert_eq!(slabs.descriptor(kept.index).expect("descriptor").state.load(Ordering::Relaxed), BUILDING);
    }

    #[test]
    fn what_is_owned_in_a_sweep_is_looked_for_in_the_next() {
        let file = file();
        let mapped = Mapped::default();
        let slabs = slabs(&file, &mapped);
        slabs.allocate(20_000, ME).expect("slab");
        slabs.sweep(|_, _| true).expect("sweep");
        assert!(slabs.fresh() >= 20_000);
        slabs.sweep(|_, _| false).expect("sweep");
        assert_eq!(slabs.fresh(), 0);
    }

    #[test]
    fn fresh_slabs_are_filled_as_they_are_made_and_warm_ones_are_not() {
        let file = file();
        let mapped = Mapped::default();
        let slabs = slabs(&file, &mapped);
        let len = WRITTEN as usize + 12_345;
        let numbered: Vec<u8> = (0..=255).cycle().take(len).collect();
        let parts: Vec<&[u8]> = numbered.chunks(7000).flat_map(|part| [part, &[]]).collect();
        let (slab, filled) = slabs.allocate_for(&parts, len as u64, ME).expect("slab");
        assert!(filled);
        let address = file.pointer(slab.offset, len as u64).expect("mapped");
        // SAFETY: allocated, and this test's alone.
        assert_eq!(unsafe { memory::own_bytes(address, len) }, numbered);
        assert!(memory::size(file.file()).expect("size").is_multiple_of(PAGE as u64));
        slabs.free(slab.index, true).expect("free");
        let (again, filled) = slabs.allocate_for(&[&numbered[1..]], len as u64 - 1, ME).expect("slab");
        assert_eq!((again.index, filled), (slab.index, false));
        // SAFETY: as above.
        assert_eq!(unsafe { memory::own_bytes(address, len) }, numbered);
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error_and_nothing_is_lost() {
        let file = file();
        let mapped = Mapped::default();
        let slabs = slabs(&file, &mapped);
        assert_eq!(*slabs.allocate(u64::MAX, ME).expect_err("too large").kind(), Kind::OutOfMemory);
        assert!(slabs.allocate(LARGEST, ME).is_err());
        assert!(slabs.allocate(1 << 20, ME).is_ok());
    }
}
