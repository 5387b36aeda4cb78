//! Who runs: process and thread ids without system calls, identities that survive pid reuse, hooks around `fork(2)`.
//!
//! # Safety
//! The fork hooks are registered once and never unregistered; they run on the forking thread only. They touch this
//! module's atomics and thread-local and the functions given to `at_fork`, which keep to what is allowed there.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::num::NonZeroU64;
use std::io::Read;
use std::sync::{Mutex, Once, PoisonError};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::atomic::{AtomicU32, Ordering};

/// Ends this process at once, without anything that C or Rust have registered for its end.
pub fn exit(code: i32) -> ! {
    // SAFETY: does not return, and touches nothing of this process's memory.
    unsafe { libc::_exit(code) }
}

/// The kernel's number of the calling thread.
#[must_use]
pub fn thread_id() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Bits of an id: the kernel never gives one of 2^22 or more (`PID_MAX_LIMIT`).
const ID_BITS: u32 = 22;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
/// Bits of the start time kept in each half.
const START_LOW_BITS: u32 = 8;
const START_HIGH_BITS: u32 = 10;
const START_MODULUS: u64 = (1 << (START_LOW_BITS + START_HIGH_BITS)) - 1;

/// A thread of a process: ids and a fingerprint of the process's start time.
///
/// | bits   | content                                      |
/// |--------|----------------------------------------------|
/// | 0..22  | thread id                                    |
/// | 22..30 | start time, low part                         |
/// | 30..32 | always zero: for the flags of the word's user |
/// | 32..54 | process id                                   |
/// | 54..64 | start time, high part                        |
///
/// The low half is never zero, so that it can be a futex word in which zero means nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(NonZeroU64);

impl Identity {
    /// The bits a word that holds an identity may use for itself.
    pub const FLAGS: u64 = 0b11 << 30;

    /// The calling thread.
    #[inline]
    #[must_use]
    pub fn current() -> Self {
        match NonZeroU64::new(CURRENT.get()) {
            Some(bits) => Self(bits),
            None => Self::compute(),
        }
    }

    #[cold]
    fn compute() -> Self {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let start = read_stat(pid()).map_or(0, |stat| stat.start);
        let me = Self::new(pid(), tid, start).unwrap_or_else(|| unreachable!("a thread id is never zero"));
        CURRENT.set(me.to_word());
        me
    }

    fn new(pid: u32, tid: u32, start: u64) -> Option<Self> {
        let start = fingerprint(start);
        let low = (u64::from(tid) & ID_MASK) | ((start & ((1 << START_LOW_BITS) - 1)) << ID_BITS);
        let high = (u64::from(pid) & ID_MASK) | ((start >> START_LOW_BITS) << ID_BITS);
        NonZeroU64::new(low | (high << 32)).map(Self)
    }

    /// The main thread of a process that exists, be it as a zombie.
    #[must_use]
    pub fn of_process(pid: u32) -> Option<Self> {
        read_stat(pid).and_then(|stat| Self::new(pid, pid, stat.start))
    }

    /// From a word in shared memory, its flags ignored; `None` when it names nobody.
    #[inline]
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        NonZeroU64::new(word & !Self::FLAGS).map(Self)
    }

    #[inline]
    #[must_use]
    pub fn to_word(self) -> u64 {
        self.0.get()
    }

    #[must_use]
    pub fn pid(self) -> u32 {
        ((self.0.get() >> 32) & ID_MASK) as u32
    }

    #[must_use]
    pub fn tid(self) -> u32 {
        (self.0.get() & ID_MASK) as u32
    }

    /// Whether the kernel knows a process of that id. Much faster than `is_alive`, and also true of zombies.
    #[must_use]
    pub fn is_known(self) -> bool {
        self.pid() == pid() || exists(self.pid())
    }

    /// Whether both are threads of one process.
    #[inline]
    #[must_use]
    pub fn is_same_process(self, other: Self) -> bool {
        (self.0.get() ^ other.0.get()) & !ID_MASK == 0
    }

    fn start(self) -> u64 {
        let low = (self.0.get() >> ID_BITS) & ((1 << START_LOW_BITS) - 1);
        let high = self.0.get() >> (32 + ID_BITS);
        low | (high << START_LOW_BITS)
    }

    /// Whether the process still runs. A zombie does not: its memory and its threads are gone.
    ///
    /// Errs towards "yes": when `/proc` is missing, and when a reused pid has the same fingerprint (1 in 262,143).
    #[must_use]
    pub fn is_alive(self) -> bool {
        let pid = self.pid();
        if pid == self::pid() {
            return self.is_same_process(Self::current());
        }
        if exists(pid) {
            read_stat(pid).is_none_or(|stat| {
                let same = self.start() == 0 || fingerprint(stat.start) == self.start();
                // The leader of a process whose other threads still run is a zombie, too.
                let gone = matches!(stat.state, b'Z' | b'X') && stat.threads <= 1;
                same && !gone
            })
        } else {
            false
        }
    }
}

/// Never zero: zero stands for a start time that could not be read.
fn fingerprint(ticks: u64) -> u64 {
    if ticks == 0 { 0 } else { ticks % START_MODULUS + 1 }
}

/// Whether the kernel knows a process (or zombie) of this id.
fn exists(pid: u32) -> bool {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return false };
    rustix::process::test_kill_process(pid) != Err(Errno::SRCH)
}

/// Whether the process runs, if it is known only by its id.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    exists(pid) && Identity::of_process(pid).is_none_or(Identity::is_alive)
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: u8,
    threads: u32,
    /// Clock ticks from boot to the start of the process.
    start: u64,
}

fn read_stat(pid: u32) -> Option<Stat> {
    let mut text = [0_u8; 512];
    let len = std::fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut text)).ok()?;
    parse_stat(text.get(..len)?)
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The second field is the program's name in parentheses, and may itself hold anything.
    let end_of_name = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = text.get(end_of_name + 2..)?.split(|byte| *byte == b' ');
    let mut number = |nth| fields.nth(nth).and_then(|field| str::from_utf8(field).ok()?.parse::<u64>().ok());
    let state = *text.get(end_of_name + 2)?;
    // Fields 20 and 22 of proc_pid_stat(5); the iterator starts at field 3.
    let threads = number(17)? as u32;
    let start = number(1)?;
    Some(Stat { state, threads, start })
}

static PID: AtomicU32 = AtomicU32::new(0);
static FORKS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The identity of this thread, zero until asked for.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// The id of this process, without a system call.
#[inline]
#[must_use]
pub fn pid() -> u32 {
    match PID.load(Ordering::Relaxed) {
        0 => first_pid(),
        pid => pid,
    }
}

#[cold]
fn first_pid() -> u32 {
    watch_forks();
    let pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    PID.store(pid, Ordering::Relaxed);
    pid
}

/// Functions to run around `fork(2)`: on the forking thread, before it, and after it on each side.
///
/// They may run in any process, also one that forks with locks of other threads held: no lock may be waited for that the
/// forking thread does not itself take in `prepare`.
#[derive(Clone, Copy, Debug)]
pub struct ForkHooks {
    pub prepare: fn(),
    pub parent: fn(),
    pub child: fn(),
}

/// How often this process and those it was forked from have forked, of which some attempts may have failed.
#[must_use]
pub fn forks() -> u32 {
    watch_forks();
    FORKS.load(Ordering::Relaxed)
}

static HOOKS: Mutex<Vec<ForkHooks>> = Mutex::new(Vec::new());

/// Runs `hooks` at every later fork of this process and of its children.
pub fn at_fork(hooks: ForkHooks) {
    watch_forks();
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner).push(hooks);
}

fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the three functions live as long as the program and keep to what the module header says.
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    });
}

fn each(hook: impl Fn(&ForkHooks) -> fn()) {
    // `try_lock`: another thread in `at_fork` at this instant has nothing shared to protect yet.
    if let Ok(hooks) = HOOKS.try_lock() {
        hooks.iter().for_each(|hooks| hook(hooks)());
    }
}

extern "C" fn prepare() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    each(|hooks| hooks.prepare);
}

extern "C" fn parent() {
    each(|hooks| hooks.parent);
}

extern "C" fn child() {
    PID.store(0, Ordering::Relaxed);
    CURRENT.set(0);
    each(|hooks| hooks.child);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_name_with_parentheses_and_spaces() {
        let text = b"42 (a) b (c) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 3 0 98765 21 22";
        let stat = parse_stat(text).expect("a stat line");
        assert_eq!((stat.state, stat.threads, stat.start), (b'Z', 3, 98765));
    }

    #[test]
    fn truncated_text_is_no_stat() {
        assert!(parse_stat(b"").is_none());
        assert!(parse_stat(b"42 (a").is_none());
        assert!(parse_stat(b"42 (a)").is_none());
        assert!(parse_stat(b"42 (a) S 1").is_none());
    }

    #[test]
    fn the_current_identity_names_this_thread() {
        let me = Identity::current();
        assert_eq!(me.pid(), std::process::id());
        assert_eq!(me.to_word() & Identity::FLAGS, 0);
        assert_eq!(Identity::from_word(me.to_word() | Identity::FLAGS), Some(me));
        assert!(me.is_alive());
        let other = std::thread::spawn(Identity::current).join().expect("a thread");
        assert_eq!(other.pid(), me.pid());
        assert_ne!(other.tid(), me.tid());
    }

    #[test]
    fn a_zombie_and_a_reaped_process_are_dead() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let it = Identity::of_process(child.id()).expect("its identity");
        let start = read_stat(child.id()).expect("its stat").start;
        let impostor = Identity::new(child.id(), child.id(), start + 1).expect("an identity");
        assert!(it.is_alive());
        assert!(!impostor.is_alive());
        child.kill().expect("a kill");
        while read_stat(child.id()).is_some_and(|stat| stat.state != b'Z') {
            std::thread::yield_now();
        }
        assert!(!it.is_alive());
        child.wait().expect("its status");
        assert!(!it.is_alive());
    }
}
