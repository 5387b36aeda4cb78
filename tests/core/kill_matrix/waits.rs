//! The page in which a process says what its threads wait for: read while the process is stopped, and when it is dead.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::fs::File;
use std::sync::{Barrier, RwLock};
use std::thread;

use rsmp_core::shm::waits::{self, Kind, Page, Wait, Waiting, What};
use rsmp_core::sys::proc;
use rsmp_core::sys::process::Identity;

use super::survivor::know_myself;
use super::{Maker, Scenario};

pub(crate) const ALL: &[Maker] = &[
    ("waits: the first of a process", first),
    ("waits: enter and leave", again),
    ("waits: another inside, and whom it found", nested),
    ("waits: a fork ends the wait it was made in", inherited),
    ("waits: a thread ends", thread_ends),
    ("waits: the second thread of a process", second_thread),
    ("waits: read a page", read),
];

/// What the survivor waits for all the while, the stepped process, and that in the middle of it.
const OURS: What = What::new(Kind::Barrier, 0x0101, 0x0202);
const OUTER: What = What::new(Kind::Lock, 0x1111, 0x2222);
const INNER: What = What::new(Kind::QueueGet, 0x3333, 0x4444);

/// Threads that a page has room for.
const SLOTS: usize = 62;

/// A process's name of more bytes than there is room for.
const NAME: &str = "a wörker with a name that is längër than the sixty-four bytes that a page has for it";
const KEPT: &str = "a wörker with a name that is längër than the sixty-four bytes";

/// The pages that `pid` has open: its own, and those of processes that it was forked from or looks at.
fn pages(pid: u32) -> Vec<File> {
    let mut files = proc::memory_files(pid).unwrap();
    files.retain(|file| file.name == waits::FILE);
    files.sort_by_key(|file| file.identity);
    files.dedup_by_key(|file| file.identity);
    files.iter().map(|file| proc::open(pid, file.descriptor).unwrap()).collect()
}

fn owned_by(pid: u32, files: &[File]) -> Option<Page> {
    let pages = files.iter().filter_map(|file| Page::read(file).expect("it can be read"));
    let mut own = pages.filter(|page| page.owner.pid() == pid);
    let page = own.next();
    assert_eq!(own.next(), None, "two pages of one process");
    page
}

fn own_page() -> Option<Page> {
    let me = std::process::id();
    owned_by(me, &pages(me))
}

/// Who waits in this process.
fn own_waiting() -> Vec<Waiting> {
    own_page().expect("it has waited").waiting
}

fn number(waiting: &Waiting) -> (What, bool) {
    (waiting.what, waiting.timed)
}

/// Every thread that there is room for can wait, and is seen to; then only this one is.
fn check_own_page() {
    let (all, looking) = (Barrier::new(SLOTS), RwLock::new(()));
    let wait = || {
        let _wait = waits::begin(OUTER, true);
        all.wait();
        drop(looking.read());
    };
    let full = thread::scope(|scope| {
        let look = looking.write();
        let threads: Vec<_> = (1..SLOTS).map(|_| scope.spawn(wait)).collect();
        all.wait();
        let full = own_waiting();
        drop(look);
        // The scope does not wait for a thread's last act, which gives the slot back.
        for thread in threads {
            thread.join().unwrap();
        }
        full
    });
    assert_eq!(full.len(), SLOTS, "slots are lost");
    assert_eq!(full.iter().filter(|waiting| number(waiting) == (OUTER, true)).count(), SLOTS - 1);
    let waiting = own_waiting();
    assert_eq!(waiting.iter().map(number).collect::<Vec<_>>(), [(OURS, false)]);
    assert_eq!(waiting[0].who, Identity::current());
    assert_eq!(waiting[0].holder, None);
}

/// What may be read of the stopped process.
struct Expected<'a> {
    /// Of each thread that waits.
    may_wait: &'a dyn Fn(&Waiting) -> bool,
    /// How many wait at least and at most.
    always: usize,
    at_most: usize,
}

impl Expected<'_> {
    fn check(&self, page: &Page) {
        assert_eq!(page.name, KEPT);
        assert!(page.owner.is_alive() && (self.always..=self.at_most).contains(&page.waiting.len()), "{page:?}");
        for waiting in &page.waiting {
            assert!(waiting.who.is_same_process(page.owner) && waiting.since != 0, "{waiting:?}");
            assert!(waiting.holder.is_none_or(|(_, since)| since != 0), "{waiting:?}");
            assert!((self.may_wait)(waiting), "parts of two waits: {waiting:?}");
        }
    }
}

/// Runs a scenario in the middle of a wait of the survivor's, who reads the pages of the stopped process, and holds them
/// open while it dies.
fn watched(
    run: &mut dyn FnMut(Scenario<'_>),
    name: &'static str,
    expected: &Expected<'_>,
    prepare: &dyn Fn(),
    operation: &dyn Fn(),
) {
    let (held, seen) = (RefCell::new(Vec::new()), RefCell::new(None));
    run(Scenario {
        name,
        prepare: Box::new(prepare),
        operation: Box::new(operation),
        look: Some(Box::new(|pid| {
            let files = pages(pid);
            let page = owned_by(pid, &files);
            page.as_ref().inspect(|page| expected.check(page));
            assert!(page.is_some() || expected.always == 0, "a page is lost");
            seen.replace(page);
            held.replace(files);
        })),
        check: Box::new(|pid, done| {
            assert!(proc::memory_files(pid).is_err(), "the dead still have files");
            let left = owned_by(pid, &held.borrow());
            assert_eq!(left, *seen.borrow(), "changed by a dead process");
            assert!(!done || left.as_ref().is_some_and(|page| page.waiting.len() == expected.always), "{left:?}");
            assert!(left.is_none_or(|page| !page.owner.is_alive()));
            check_own_page();
        }),
    });
}

/// The survivor waits, now and until the wait is dropped.
fn ours() -> Wait {
    waits::name_by(|| Some(NAME.to_owned()));
    waits::begin(OURS, false)
}

fn outer(waiting: &Waiting) -> bool {
    number(waiting) == (OUTER, true) && waiting.holder.is_none()
}

const NOTHING_OR_OUTER: Expected<'static> = Expected { may_wait: &outer, always: 0, at_most: 1 };

fn enter_and_leave() {
    drop(waits::begin(OUTER, true));
}

/// The page is made, and a slot claimed in it.
fn first(run: &mut dyn FnMut(Scenario<'_>)) {
    let _wait = ours();
    watched(run, "the first of a process", &NOTHING_OR_OUTER, &know_myself, &enter_and_leave);
}

fn again(run: &mut dyn FnMut(Scenario<'_>)) {
    let _wait = ours();
    let before = || drop(waits::begin(INNER, false));
    watched(run, "enter and leave", &NOTHING_OR_OUTER, &before, &enter_and_leave);
}

/// The handler of a signal waits in the middle of a wait for a lock, which changes hands.
fn nested(run: &mut dyn FnMut(Scenario<'_>)) {
    let _wait = ours();
    let holders = [1, std::process::id()].map(Identity::of_process);
    let may_wait = |waiting: &Waiting| match number(waiting) {
        (OUTER, true) => waiting.holder.is_none_or(|(holder, _)| holders.contains(&Some(holder))),
        (INNER, false) => waiting.holder.is_none(),
        _ => false,
    };
    let before = || drop(waits::begin(INNER, true));
    let operation = || {
        let outer = waits::begin(OUTER, true);
        waits::found(holders[0]);
        drop(waits::begin(INNER, false));
        waits::found(holders[1]);
        waits::found(None);
        drop(outer);
    };
    let expected = Expected { may_wait: &may_wait, always: 0, at_most: 1 };
    watched(run, "another inside, and whom it found", &expected, &before, &operation);
}

/// What the child of a fork finds on its stack is its parent's wait: it has no page yet, and no part in its parent's.
fn inherited(run: &mut dyn FnMut(Scenario<'_>)) {
    let parents = Cell::new(Some(ours()));
    let operation = || {
        waits::found(Some(Identity::current()));
        drop(parents.take());
        enter_and_leave();
    };
    watched(run, "a fork ends the wait it was made in", &NOTHING_OR_OUTER, &know_myself, &operation);
}

/// Another thread of the process has the first slot, and waits on whatever happens to this one.
fn second_thread(run: &mut dyn FnMut(Scenario<'_>)) {
    let _wait = ours();
    let may_wait = |waiting: &Waiting| {
        let first = waiting.who.tid() == waiting.who.pid();
        if first { outer(waiting) } else { number(waiting) == (INNER, false) }
    };
    let before = || {
        know_myself();
        thread::spawn(|| {
            let _wait = waits::begin(INNER, false);
            loop {
                thread::park();
            }
        });
        while own_page().is_none_or(|page| page.waiting.is_empty()) {
            thread::sleep(Duration::from_micros(100));
        }
    };
    let expected = Expected { may_wait: &may_wait, always: 1, at_most: 2 };
    watched(run, "the second thread of a process", &expected, &before, &enter_and_leave);
}

/// A thread ends in the middle of a wait: its slot says that it waits for nothing, then it is free.
fn thread_ends(run: &mut dyn FnMut(Scenario<'_>)) {
    let _wait = ours();
    let before = || core::mem::forget(waits::begin(OUTER, true));
    watched(run, "a thread ends", &NOTHING_OR_OUTER, &before, &end_thread);
}

/// Does to the calling thread's variables what its end would do.
fn end_thread() {
    // SAFETY: asks for the address of a function, by a name that ends with a zero.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__call_tls_dtors".as_ptr()) };
    assert!(!function.is_null(), "another C library");
    // SAFETY: the C library's own, which takes and returns nothing; what this process does afterwards, to stop and to
    // `_exit`, has no use for the variables.
    unsafe { core::mem::transmute::<*mut core::ffi::c_void, extern "C" fn()>(function)() };
}

/// Whoever reads is killed doing it.
fn read(run: &mut dyn FnMut(Scenario<'_>)) {
    let _wait = ours();
    let files = pages(std::process::id());
    run(Scenario {
        name: "read a page",
        prepare: Box::new(know_myself),
        operation: Box::new(|| assert!(files.iter().all(|file| Page::read(file).is_ok_and(|page| page.is_some())))),
        look: None,
        check: Box::new(|_, _| check_own_page()),
    });
}
