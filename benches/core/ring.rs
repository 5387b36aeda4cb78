//! The queue: what one record costs, by length, by batch, from one thread to another and back.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use rsmp_core::Deadline;
use rsmp_core::ring::{Batch, Limits, Put, Ring};

const LENGTHS: [usize; 6] = [8, 64, 1 << 10, 1 << 16, 1 << 20, 8 << 20];
const STREAMED: usize = 10_000;

fn main() {
    divan::main();
}

fn ring() -> Arc<Ring> {
    Ring::create(Limits::default()).expect("a queue")
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn put(ring: &Ring, bytes: &[u8]) {
    ring.put_bytes(1, &[bytes], soon()).expect("put").expect("room");
}

fn get(ring: &Arc<Ring>, batch: &mut Batch) -> usize {
    batch.clear();
    ring.get(batch, 1, soon()).expect("get");
    batch.get(0).1.len()
}

/// Put and get in one thread: no other CPU has a part in it.
#[divan::bench(args = LENGTHS)]
fn put_and_get(bencher: Bencher, len: usize) {
    let (ring, message, mut batch) = (ring(), vec![7; len], Batch::new());
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        put(&ring, &message);
        assert_eq!(get(&ring, &mut batch), len);
    });
}

/// The same a hundred at a time; the time is that of the hundred.
#[divan::bench]
fn put_and_get_a_hundred(bencher: Bencher) {
    let (ring, mut batch) = (ring(), Batch::new());
    bencher.counter(ItemsCount::new(100_usize)).bench_local(|| {
        let parts: [&[u8]; 1] = [&[7; 8]];
        let parcels: Vec<_> = (0..100).map(|_| ring.parcel(1, &parts).expect("parcel")).collect();
        assert!(matches!(ring.try_put(&parcels).expect("put"), Put::Done(100)));
        batch.clear();
        let mut got = 0;
        while got < 100 {
            got += ring.get(&mut batch, 100 - got, soon()).expect("get");
        }
        assert_eq!(black_box(batch.len()), 100);
    });
}

/// Ten thousand records from one thread to another; the time is that of all.
#[divan::bench(args = [8, 1 << 10, 1 << 16], sample_count = 20)]
fn stream(bencher: Bencher, len: usize) {
    let message = vec![7; len];
    bencher.counter(ItemsCount::new(STREAMED)).bench(|| {
        let ring = ring();
        thread::scope(|scope| {
            scope.spawn(|| (0..STREAMED).for_each(|_| put(&ring, &message)));
            let mut batch = Batch::new();
            for _ in 0..STREAMED {
                assert_eq!(get(&ring, &mut batch), len);
            }
        });
    });
}

/// A thousand times there and back between two threads; the time is that of all.
#[divan::bench(sample_count = 20)]
fn ping_pong(bencher: Bencher) {
    bencher.counter(ItemsCount::new(1_000_usize)).bench(|| {
        let (there, back) = (ring(), ring());
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut batch = Batch::new();
                for _ in 0..1_000 {
                    get(&there, &mut batch);
                    put(&back, &[7; 8]);
                }
            });
            let mut batch = Batch::new();
            for _ in 0..1_000 {
                put(&there, &[7; 8]);
                get(&back, &mut batch);
            }
        });
    });
}

/// Making a queue and letting go of it.
#[divan::bench]
fn create() -> Arc<Ring> {
    ring()
}
