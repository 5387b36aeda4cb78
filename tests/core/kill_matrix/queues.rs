//! Queues: put, get, growth, slabs, leases, waiting.

use std::sync::Arc;

use rsmp_core::Deadline;
use rsmp_core::ring::{Batch, Limits, Ring, Taken};

use super::{Maker, Scenario, soon};

pub(crate) const ALL: &[Maker] = &[
    ("queue: put", put),
    ("queue: put, bounded and watched", put_bounded),
    ("queue: put many", put_many),
    ("queue: put into a new segment", put_grow),
    ("queue: put into a new table", put_grow_table),
    ("queue: put a slab", put_slab),
    ("queue: put a warm slab", put_warm_slab),
    ("queue: put a slab that is written as it is made", put_large_slab),
    ("queue: get", get),
    ("queue: get the last, bounded and watched", get_bounded),
    ("queue: get many", get_many),
    ("queue: get and recycle segments", get_recycle),
    ("queue: get a slab", get_slab),
    ("queue: give memory back", rest),
    ("queue: repair after a death", repair),
    ("queue: done with the last item", task_done),
];

/// Does once what a process does once, such as counting the processors: the stepped ones inherit it.
pub(crate) fn warm_up() {
    let ring = Ring::create(Limits { items: 2, bytes: 0 }).unwrap();
    ring.watch().unwrap();
    fill(&ring, 0..2, 20_000);
    assert!(ring.put_bytes(0, &[b"x"], Deadline::after(core::time::Duration::from_millis(2))).unwrap().is_none());
    drain(&ring);
    ring.wait(Deadline::after(core::time::Duration::from_millis(2)));
}

fn payload(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = number.to_ne_bytes().to_vec();
    bytes.extend((4..len).map(|index| (index as u32 * 7 + number) as u8));
    bytes
}

fn fill(ring: &Ring, numbers: core::ops::Range<u32>, len: usize) {
    for number in numbers {
        ring.put_bytes(number as u8, &[&payload(number, len)], soon()).unwrap().expect("room");
    }
}

/// Takes everything out and checks it; returns the numbers.
fn drain(ring: &Arc<Ring>) -> Vec<u32> {
    let expected = ring.len();
    let mut batch = Batch::new();
    let mut numbers = Vec::new();
    loop {
        batch.clear();
        match ring.try_get(&mut batch, 7).unwrap() {
            Taken::Empty => break,
            Taken::Busy => panic!("a lock is held by the dead"),
            Taken::Done(_) => {}
        }
        for (tag, bytes) in batch.iter() {
            let number = u32::from_ne_bytes(bytes[..4].try_into().unwrap());
            assert_eq!(u32::from(tag), number & 0xff);
            assert!(bytes == payload(number, bytes.len()), "record {number} is torn");
            numbers.push(number);
        }
    }
    assert_eq!(numbers.len() as u64, expected, "the length is not what came out");
    assert!(ring.is_empty());
    numbers
}

/// The queue serves all the same, short records and long, and holds no more memory than it should.
fn check_works(ring: &Arc<Ring>) {
    for len in [10, 3000, 100_000] {
        fill(ring, 900..901, len);
        assert_eq!(drain(ring), [900]);
    }
}

fn check_memory(ring: &Arc<Ring>) {
    // Rounds enough for a sweep to find what the dead had.
    for _ in 0..3 {
        fill(ring, 900..901, 100_000);
        assert_eq!(drain(ring), [900]);
        ring.rest().unwrap();
    }
    let held = ring.memory().unwrap();
    assert!(held < 1 << 20, "{held} bytes held");
}

/// A process puts `new` records of `len` bytes behind `old` ones.
fn putting(run: &mut dyn FnMut(Scenario<'_>), name: &'static str, ring: &Arc<Ring>, old: u32, new: u32, len: usize) {
    let records: Vec<Vec<u8>> = (old..old + new).map(|number| payload(number, len)).collect();
    run(Scenario {
        name,
        prepare: Box::new(|| {}),
        operation: Box::new(|| {
            let parts: Vec<[&[u8]; 1]> = records.iter().map(|record| [record.as_slice()]).collect();
            let mut parcels = Vec::with_capacity(parts.len());
            for (number, part) in (old as u8..).zip(&parts) {
                parcels.push(ring.parcel(number, part).unwrap());
            }
            let mut put = 0;
            while put < parcels.len() {
                put += ring.put(&parcels[put..], Deadline::NEVER).unwrap();
            }
        }),
        look: None,
        check: Box::new(|_, done| {
            let numbers = drain(ring);
            let count = numbers.len() as u32;
            assert!(numbers.into_iter().eq(0..count), "not in order");
            assert!((old..=old + new).contains(&count), "{count} records");
            assert!(!done || count == old + new, "a record is lost");
            check_works(ring);
            check_memory(ring);
        }),
    });
}

fn put(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..2, 50);
    putting(run, "put", &ring, 2, 1, 100);
}

fn put_bounded(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits { items: 5, bytes: 1 << 20 }).unwrap();
    ring.watch().unwrap();
    putting(run, "put, bounded and watched", &ring, 0, 1, 100);
}

fn put_many(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..2, 50);
    putting(run, "put many", &ring, 2, 3, 40);
}

fn put_grow(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    // The next record begins in the first segment and ends in the second.
    fill(&ring, 0..4, 15_000);
    putting(run, "put into a new segment", &ring, 4, 1, 9000);
}

fn put_grow_table(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..262, 16_000);
    fill(&ring, 262..262 + 32, 16);
    putting(run, "put into a new table", &ring, 294, 1, 3000);
}

fn put_slab(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..1, 50);
    putting(run, "put a slab", &ring, 1, 1, 20_000);
}

fn put_large_slab(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..1, 50);
    putting(run, "put a slab that is written as it is made", &ring, 1, 1, 5_000_000);
}

fn put_warm_slab(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..2, 20_000);
    drain(&ring);
    putting(run, "put a warm slab", &ring, 0, 1, 20_000);
}

/// A process takes `most` of `count` records of `len` bytes.
fn getting(run: &mut dyn FnMut(Scenario<'_>), name: &'static str, ring: &Arc<Ring>, count: u32, most: usize) {
    run(Scenario {
        name,
        prepare: Box::new(|| {}),
        operation: Box::new(|| {
            let mut batch = Batch::new();
            ring.get(&mut batch, most, Deadline::NEVER).unwrap();
            batch.clear();
        }),
        look: None,
        check: Box::new(|_, done| {
            let numbers = drain(ring);
            let taken = count - numbers.len() as u32;
            assert!(numbers.into_iter().eq(taken..count), "not in order, or given out twice");
            assert!(taken as usize <= most && (!done || taken > 0));
            check_works(ring);
            check_memory(ring);
        }),
    });
}

fn get(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..3, 100);
    getting(run, "get", &ring, 3, 1);
}

fn get_bounded(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits { items: 1, bytes: 0 }).unwrap();
    ring.watch().unwrap();
    fill(&ring, 0..1, 100);
    getting(run, "get the last, bounded and watched", &ring, 1, 1);
}

fn get_many(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..5, 60);
    getting(run, "get many", &ring, 5, 4);
}

fn get_recycle(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    // Enough drained segments that the next get gives some back.
    fill(&ring, 0..90, 15_000);
    let mut batch = Batch::new();
    for _ in 0..70 {
        batch.clear();
        ring.get(&mut batch, 1, soon()).unwrap();
    }
    let left = ring.len() as u32;
    run(Scenario {
        name: "get and recycle segments",
        prepare: Box::new(|| {}),
        operation: Box::new(|| {
            let mut batch = Batch::new();
            for _ in 0..6 {
                ring.get(&mut batch, 1, Deadline::NEVER).unwrap();
                batch.clear();
            }
        }),
        look: None,
        check: Box::new(|_, _| {
            let numbers = drain(&ring);
            let count = numbers.len() as u32;
            assert!((left - 6..=left).contains(&count));
            assert!(numbers.into_iter().eq(90 - count..90));
            check_works(&ring);
            check_memory(&ring);
        }),
    });
}

fn get_slab(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..2, 20_000);
    getting(run, "get a slab", &ring, 2, 1);
}

fn rest(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..10, 15_000);
    fill(&ring, 10..12, 20_000);
    drain(&ring);
    run(Scenario {
        name: "give memory back",
        prepare: Box::new(|| {}),
        operation: Box::new(|| ring.rest().unwrap()),
        look: None,
        check: Box::new(|_, _| {
            assert!(ring.is_empty());
            check_works(&ring);
            check_memory(&ring);
        }),
    });
}

/// A process dies in a put; the next one repairs, and is killed doing it.
fn repair(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..2, 20_000);
    for _ in 0..2 {
        let long = payload(77, 20_000);
        let victim = super::Stepped::start(
            || {},
            || {
                ring.put_bytes(77, &[&long[..100]], Deadline::NEVER).unwrap();
            },
        );
        let Some(victim) = victim else { return };
        // Somewhere in the middle, with the lock held more likely than not.
        for _ in 0..700 {
            if victim.step() == super::Step::Done {
                break;
            }
        }
        victim.kill();
    }
    let old = ring.len() as u32;
    let record = payload(2, 20_000);
    run(Scenario {
        name: "repair after a death",
        prepare: Box::new(|| {}),
        operation: Box::new(|| {
            ring.put_bytes(2, &[&record], Deadline::NEVER).unwrap();
        }),
        look: None,
        check: Box::new(|_, done| {
            let numbers = drain(&ring);
            let new = numbers.iter().filter(|number| **number == 2).count() as u32;
            assert!(new <= 1 && (!done || new == 1) && numbers.len() as u32 == old + new);
            assert_eq!(numbers[..2], [0, 1]);
            check_works(&ring);
            check_memory(&ring);
        }),
    });
}

fn task_done(run: &mut dyn FnMut(Scenario<'_>)) {
    let ring = Ring::create(Limits::default()).unwrap();
    fill(&ring, 0..1, 10);
    drain(&ring);
    let round = ring.round();
    run(Scenario {
        name: "done with the last item",
        prepare: Box::new(|| {}),
        operation: Box::new(|| assert!(ring.task_done())),
        look: None,
        check: Box::new(|_, done| {
            let unfinished = ring.unfinished();
            assert!(unfinished <= 1 && (!done || unfinished == 0));
            if unfinished == 1 {
                assert!(ring.task_done());
            }
            assert!(ring.join(round, soon()) && !ring.task_done());
        }),
    });
}
