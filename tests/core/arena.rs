//! The arena across processes: what is used again, when, and what another process is given.
//!
//! One test: sharing events are those of the whole process, and a fork anywhere counts for every cell.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::os::fd::{AsFd, AsRawFd};

use rsmp_core::atomic::Ordering;
use rsmp_core::error::Kind;
use rsmp_core::shm::arena::{self, Cell, LINE, MAX_CELL};
use rsmp_core::sys::process::Identity;

/// Forks a child that runs `body` and exits; returns its pid.
fn fork(body: impl FnOnce()) -> i32 {
    // SAFETY: the harness runs this one test, so the child has the only thread that matters.
    match unsafe { libc::fork() } {
        0 => {
            body();
            // SAFETY: leaves without running what belongs to the parent.
            unsafe { libc::_exit(0) }
        }
        pid => pid,
    }
}

fn reap(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}

fn kill(pid: i32) {
    // SAFETY: a child of this process, not yet reaped.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    reap(pid);
}

/// Drops `count` cells that a dead child could hold: enough of them make the arena look who lives.
fn quarantine(count: usize) {
    let cells: Vec<Cell> = (0..count).map(|_| arena::allocate(LINE).unwrap()).collect();
    assert_eq!(reap(fork(|| {})), 0);
    drop(cells);
}

/// Whether one of `offsets` is handed out again.
fn comes_back(offsets: &[usize]) -> bool {
    let cells: Vec<Cell> = (0..8000).map(|_| arena::allocate(LINE).unwrap()).collect();
    cells.iter().any(|cell| offsets.contains(&cell.offset()))
}

#[test]
fn cells_are_used_again_once_nobody_can_hold_them() {
    let first = arena::allocate(1).unwrap();
    assert_eq!(first.len(), LINE);
    let offset = first.offset();
    first.word64(8).store(7, Ordering::Relaxed);
    drop(first);
    let again = arena::allocate(LINE).unwrap();
    assert_eq!(again.offset(), offset, "never shared: used again at once");
    assert_eq!(again.word64(8).load(Ordering::Relaxed), 0, "and zero");
    drop(again);
    assert_eq!(
        *arena::allocate(MAX_CELL + 1).unwrap_err().kind(),
        Kind::Invalid("the block is too large for the arena".into())
    );
    assert_eq!(arena::allocate(MAX_CELL).unwrap().len(), MAX_CELL);

    // A child lives: what it may hold waits; what was made later does not.
    let shared: Vec<Cell> = (0..200).map(|_| arena::allocate(LINE).unwrap()).collect();
    let offsets: Vec<usize> = shared.iter().map(Cell::offset).collect();
    // SAFETY: `pause` only waits for a signal.
    let child = fork(|| unsafe {
        libc::pause();
    });
    // It may be killed before it has taken its first step.
    arena::forked(child.cast_unsigned());
    drop(shared);
    let later = arena::allocate(LINE).unwrap();
    let later_offset = later.offset();
    drop(later);
    assert_eq!(arena::allocate(LINE).unwrap().offset(), later_offset);
    assert!(!comes_back(&offsets), "the child lives");
    kill(child);
    quarantine(500);
    assert!(comes_back(&offsets), "the child is dead");

    // A grandchild keeps what its dead parent could hold, and starts an arena of its own.
    let shared: Vec<Cell> = (0..200).map(|_| arena::allocate(LINE).unwrap()).collect();
    let offsets: Vec<usize> = shared.iter().map(Cell::offset).collect();
    let report = arena::allocate(LINE).unwrap();
    let owner = report.arena().id();
    let child = fork(|| {
        let grandchild = fork(|| {
            let own = arena::allocate(LINE).unwrap();
            report.word64(8).store(own.arena().id(), Ordering::Relaxed);
            report.word64(0).store(Identity::current().to_word(), Ordering::Release);
            // SAFETY: as above.
            unsafe { libc::pause() };
        });
        assert!(grandchild > 0);
    });
    reap(child);
    while report.word64(0).load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
    assert_ne!(report.word64(8).load(Ordering::Relaxed), owner);
    drop(shared);
    assert!(!comes_back(&offsets), "the grandchild lives");
    let grandchild = Identity::from_word(report.word64(0).load(Ordering::Relaxed)).unwrap();
    assert!(grandchild.is_alive());
    // SAFETY: a process this test started.
    unsafe { libc::kill(grandchild.pid().cast_signed(), libc::SIGKILL) };
    while grandchild.is_alive() {
        std::thread::yield_now();
    }

    // A process being started counts from the moment it is told, until it is known never to come.
    let shared: Vec<Cell> = (0..3000).map(|_| arena::allocate(LINE).unwrap()).collect();
    let offsets: Vec<usize> = shared.iter().map(Cell::offset).collect();
    let arena = shared[0].arena();
    let ticket = arena.expect_process().unwrap();
    drop(shared);
    assert!(!comes_back(&offsets));
    arena.cancel_process(ticket);
    quarantine(7000);
    assert!(comes_back(&offsets));

    // Known arenas are found by id; what a pickle says is checked.
    let cell = arena::allocate(LINE).unwrap();
    let same = arena::attach(arena.id(), None, || unreachable!("it is known")).unwrap();
    assert!(std::ptr::eq(same, arena));
    let copy = same.cell(cell.offset(), cell.len()).unwrap();
    assert_eq!(copy.address(), cell.address());
    for (offset, len) in [(0, LINE), (cell.offset() + 8, LINE), (cell.offset(), 1 << 40), (usize::MAX & !63, LINE)] {
        assert!(matches!(same.cell(offset, len).unwrap_err().kind(), Kind::Corrupt(_)), "{offset} {len}");
    }
    let other = std::fs::File::open("/dev/null").unwrap();
    let error = arena::attach(1, None, || Ok(other.into())).unwrap_err();
    assert!(matches!(error.kind(), Kind::Corrupt(_)), "{error}");
    let file = arena.file().as_fd().try_clone_to_owned().unwrap();
    assert!(file.as_raw_fd() >= 0);
    let error = arena::attach(arena.id() ^ 1, None, || Ok(file)).unwrap_err();
    assert!(matches!(error.kind(), Kind::Corrupt(_)), "{error}");
}
