//! The queue as processes use it, here with threads: order, growth, limits, waiting, memory given back.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rsmp_core::Deadline;
use rsmp_core::error::Kind;
use rsmp_core::ring::{Batch, Limits, Put, Ring, Taken};

fn ring() -> Arc<Ring> {
    Ring::create(Limits::default()).expect("a queue")
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn put(ring: &Ring, tag: u8, bytes: &[u8]) {
    ring.put_bytes(tag, &[bytes], soon()).expect("put").expect("room");
}

fn get(ring: &Arc<Ring>) -> (u8, Vec<u8>) {
    let mut batch = Batch::new();
    assert_eq!(ring.get(&mut batch, 1, soon()).expect("get"), 1);
    let (tag, bytes) = batch.get(0);
    (tag, bytes.to_vec())
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 + seed) as u8).collect()
}

#[test]
fn records_come_out_as_they_went_in() {
    let ring = ring();
    let lens = [0, 1, 7, 8, 9, 16 << 10, (16 << 10) + 1, 65_535, 65_536, 65_537, 1 << 20, 3_000_000];
    for round in 0..30 {
        for (tag, len) in (0..).zip(lens) {
            put(&ring, tag, &pattern(len, round));
        }
        assert_eq!(ring.len(), lens.len() as u64);
        for (tag, len) in (0..).zip(lens) {
            assert!(get(&ring) == (tag, pattern(len, round)), "{len}");
        }
        assert!(ring.is_empty());
    }
}

#[test]
fn parts_are_joined() {
    let ring = ring();
    let long = pattern(100_000, 3);
    ring.put_bytes(1, &[b"ab", b"", b"cde"], soon()).expect("put").expect("room");
    ring.put_bytes(2, &[b"ab", &long], soon()).expect("put").expect("room");
    assert_eq!(get(&ring), (1, b"abcde".to_vec()));
    assert_eq!(get(&ring), (2, [b"ab", long.as_slice()].concat()));
}

#[test]
fn a_backlog_grows_the_queue_and_drained_memory_goes_back() {
    let ring = ring();
    let before = ring.memory().expect("size");
    // 40 MB: far beyond the first table.
    for index in 0..200_000_u32 {
        put(&ring, 0, &[&index.to_ne_bytes(), [7_u8; 180].as_slice()].concat());
    }
    let grown = ring.memory().expect("size");
    assert!(grown > before + 38_000_000, "{grown}");
    let mut batch = Batch::new();
    for index in 0..200_000_u32 {
        batch.clear();
        assert_eq!(ring.get(&mut batch, 1, soon()).expect("get"), 1);
        assert_eq!(batch.get(0).1[..4], index.to_ne_bytes());
    }
    let drained = ring.memory().expect("size");
    assert!(drained < before + 3_000_000, "{drained}");
    ring.rest().expect("rest");
    let rested = ring.memory().expect("size");
    assert!(rested < before + 300_000, "{rested}");
}

#[test]
fn drained_slabs_go_back() {
    let ring = ring();
    for index in 0..60 {
        put(&ring, 0, &pattern(1 << 20, index));
    }
    assert!(ring.memory().expect("size") > 60 << 20);
    for index in 0..60 {
        assert!(get(&ring).1 == pattern(1 << 20, index));
    }
    let drained = ring.memory().expect("size");
    assert!(drained < 6 << 20, "{drained}");
    ring.rest().expect("rest");
    let rested = ring.memory().expect("size");
    assert!(rested < 1 << 20, "{rested}");
}

#[test]
fn a_stream_uses_the_same_memory_again() {
    let ring = ring();
    for round in 0..50 {
        put(&ring, 0, &pattern(8 << 20, round));
        let mut batch = Batch::new();
        ring.get(&mut batch, 1, soon()).expect("get");
    }
    let used = ring.memory().expect("size");
    assert!(used < 17 << 20, "{used}");
    for round in 0..3000 {
        put(&ring, 0, &pattern(1000, round));
        get(&ring);
    }
    assert!(ring.memory().expect("size") <= used + (1 << 20));
}

#[test]
fn limits_hold_and_waiting_ends() {
    let ring = Ring::create(Limits { items: 3, bytes: 0 }).expect("a queue");
    for index in 0..3 {
        assert!(!ring.is_full_for(1));
        put(&ring, index, b"x");
    }
    assert!(ring.is_full_for(1));
    let parts: &[&[u8]] = &[b"y"];
    let parcel = ring.parcel(9, parts).expect("parcel");
    assert_eq!(ring.try_put(std::slice::from_ref(&parcel)).expect("put"), Put::Full);
    let late = Deadline::after(Duration::from_millis(30));
    assert_eq!(ring.put(std::slice::from_ref(&parcel), late).expect("put"), 0);
    assert!(late.has_passed());
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            assert_eq!(get(&ring).0, 0);
        });
        assert_eq!(ring.put(std::slice::from_ref(&parcel), soon()).expect("put"), 1);
    });
    assert_eq!([get(&ring).0, get(&ring).0, get(&ring).0], [1, 2, 9]);
    let mut batch = Batch::new();
    assert_eq!(ring.try_get(&mut batch, 1).expect("get"), Taken::Empty);
    assert_eq!(ring.get(&mut batch, 1, Deadline::PASSED).expect("get"), 0);
}

#[test]
fn bytes_limit_admits_one_long_record_to_an_empty_queue() {
    let ring = Ring::create(Limits { items: 0, bytes: 1000 }).expect("a queue");
    put(&ring, 0, &pattern(50_000, 0));
    assert!(ring.put_bytes(1, &[b"x"], Deadline::PASSED).expect("put").is_none());
    get(&ring);
    for _ in 0..10 {
        put(&ring, 0, &[0; 100]);
    }
    assert!(ring.put_bytes(1, &[b"x"], Deadline::PASSED).expect("put").is_none());
}

#[test]
fn many_are_put_and_taken_at_once() {
    let ring = Ring::create(Limits { items: 10, bytes: 0 }).expect("a queue");
    let parts: &[&[u8]] = &[b"item"];
    let parcels: Vec<_> = (0..25).map(|tag| ring.parcel(tag, parts).expect("parcel")).collect();
    assert_eq!(ring.put(&parcels, Deadline::PASSED).expect("put"), 10);
    let mut batch = Batch::new();
    let mut claimed = 0;
    let taken = ring.get_with(&mut batch, 4, soon(), |batch| claimed = batch.len()).expect("get");
    assert_eq!((taken, claimed), (4, 4));
    assert_eq!(ring.get(&mut batch, 100, soon()).expect("get"), 6);
    assert_eq!(batch.iter().map(|(tag, _)| tag).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[test]
fn producers_and_consumers_lose_nothing() {
    const EACH: usize = 5000;
    for limits in [Limits::default(), Limits { items: 5, bytes: 0 }, Limits { items: 0, bytes: 70_000 }] {
        let ring = Ring::create(limits).expect("a queue");
        let sum: u64 = thread::scope(|scope| {
            for producer in 0..3_u64 {
                let ring = &ring;
                scope.spawn(move || {
                    for index in 0..EACH as u64 {
                        let len = if index % 500 == 0 { 40_000 } else { 8 + index as usize % 60 };
                        let mut bytes = vec![0; len];
                        bytes[..8].copy_from_slice(&(producer * EACH as u64 + index).to_ne_bytes());
                        put(ring, 0, &bytes);
                    }
                });
            }
            let consumers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut sum = 0;
                        for _ in 0..EACH {
                            let bytes = get(&ring).1;
                            sum += u64::from_ne_bytes(bytes[..8].try_into().expect("eight bytes"));
                        }
                        sum
                    })
                })
                .collect();
            consumers.into_iter().map(|consumer| consumer.join().expect("consumer")).sum()
        });
        let total = 3 * EACH as u64;
        assert_eq!(sum, total * (total - 1) / 2);
        assert!(ring.is_empty());
    }
}

#[test]
fn the_descriptor_follows_a_watched_queue() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let ring = ring();
    let readable = || {
        let mut fds = [PollFd::from_borrowed_fd(ring.event(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll") == 1
    };
    put(&ring, 0, b"a");
    assert!(!readable());
    ring.watch().expect("watch");
    assert!(readable());
    put(&ring, 0, b"b");
    get(&ring);
    assert!(readable());
    get(&ring);
    assert!(!readable());
    put(&ring, 0, b"c");
    assert!(readable());
    get(&ring);
    assert!(!readable());
}

#[test]
fn tasks_are_counted() {
    let ring = ring();
    assert!(!ring.task_done());
    assert!(ring.join(ring.round(), Deadline::PASSED));
    put(&ring, 0, b"a");
    put(&ring, 0, b"b");
    let round = ring.round();
    assert!(ring.task_done());
    assert!(!ring.join(round, Deadline::PASSED));
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            assert!(ring.task_done());
        });
        assert!(ring.join(round, soon()));
    });
    put(&ring, 0, b"c");
    assert!(ring.join(round, Deadline::PASSED), "that round is over");
    assert_eq!(ring.unfinished(), 1);
}

#[test]
fn a_descriptor_of_something_else_is_refused() {
    let ring = ring();
    let event = || ring.event().try_clone_to_owned().expect("dup");
    let file = rustix::fs::memfd_create("other", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    assert!(matches!(Ring::attach(file, event()).expect_err("empty").kind(), Kind::Corrupt(_)));
    let other = Ring::attach(ring.file().try_clone_to_owned().expect("dup"), event()).expect("attach");
    put(&ring, 5, b"hello");
    assert_eq!(get(&other), (5, b"hello".to_vec()));
}
