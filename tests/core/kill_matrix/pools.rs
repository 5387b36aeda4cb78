//! Pools: entering, claiming, running, handing results in, asking for room.

use core::time::Duration;
use std::sync::{Arc, Mutex};
use std::thread;

use rsmp_core::Deadline;
use rsmp_core::atomic::{AtomicBool, Ordering};
use rsmp_core::pool::worker::Next;
use rsmp_core::pool::{Collected, Dispatcher, Stage, Task, Worker};

use super::{Maker, Scenario};

pub(crate) const ALL: &[Maker] = &[
    ("pool: enter", enter),
    ("pool: claim, run and hand in", serve),
    ("pool: claim, run and hand in, awaited", serve_awaited),
    ("pool: ask for room", ask),
    ("pool: be granted room and use it", granted),
    ("pool: sleep, be woken and claim", woken),
    ("pool: report a failing start", report),
    ("pool: publish, as the owner", publish_tasks),
];

fn publish(pool: &mut Dispatcher, payload: &[u8]) -> u32 {
    let task = Task { kind: 1, function: None, len: payload.len() as u64, room: 0 };
    let reserved = pool.reserve(&task).unwrap().expect("a slot");
    reserved.write(pool.board(), &[payload]).unwrap();
    let slot = reserved.slot;
    pool.publish(reserved);
    slot
}

fn result(pool: &mut Dispatcher, collected: Collected) -> Vec<u8> {
    let bytes = pool.result(collected.slot).unwrap().bytes(pool.board()).unwrap().to_vec();
    pool.release(collected.slot);
    bytes
}

fn worker(pool: &Dispatcher) -> Worker {
    let worker = Worker::enter(Arc::clone(pool.board()), std::process::id()).unwrap();
    worker.advance(Stage::Serving);
    worker
}

/// Runs the next task: its result is its payload backwards. `false` when there is none.
fn run_one(worker: &Worker) -> bool {
    let Some(Next::Task(claim)) = worker.claim() else { return false };
    let mut answer = worker.start(&claim).unwrap().to_vec();
    answer.reverse();
    worker.write(&claim, &[&answer]).unwrap();
    worker.finish(&claim, 3).unwrap();
    true
}

/// What has become of the published tasks once the worker is buried and another one has run what is left: each was run
/// to its end once, or is reported as lost.
fn check_tasks(pool: &mut Dispatcher, pid: u32, payloads: &[(u32, &[u8])], done: bool) {
    check_tasks_after(Vec::new(), pool, pid, payloads, done);
}

/// The same after the owner has collected some that are finished.
fn check_tasks_after(
    mut finished: Vec<Collected>,
    pool: &mut Dispatcher,
    pid: u32,
    payloads: &[(u32, &[u8])],
    done: bool,
) {
    let estate = pool.bury(pid, &mut finished);
    assert!(estate.again + estate.lost.len() <= 1, "{estate:?}");
    assert!(!done || (estate.again == 0 && estate.lost.is_empty()));
    let by_the_dead = finished.len();
    let heir = worker(pool);
    let mut by_the_heir = 0;
    while run_one(&heir) {
        by_the_heir += 1;
    }
    pool.collect(&mut finished);
    assert_eq!(by_the_dead + by_the_heir, finished.len());
    assert_eq!(finished.len() + estate.lost.len(), payloads.len(), "a task is lost, or run twice: {estate:?}");
    let mut slots: Vec<u32> =
        finished.iter().map(|collected| collected.slot).chain(estate.lost.iter().copied()).collect();
    slots.sort_unstable();
    let mut expected: Vec<u32> = payloads.iter().map(|(slot, _)| *slot).collect();
    expected.sort_unstable();
    assert_eq!(slots, expected, "a task is lost, or run twice");
    for collected in finished {
        let (_, payload) = payloads.iter().find(|(slot, _)| *slot == collected.slot).unwrap();
        let mut answer = payload.to_vec();
        answer.reverse();
        assert_eq!(result(pool, collected), answer);
        assert_eq!(collected.outcome, 3);
    }
    for slot in estate.lost {
        pool.release(slot);
    }
    assert_eq!(pool.in_use(), 0);
    assert!(pool.board().find(pid).is_none());
    // And the pool serves on.
    let slot = publish(pool, b"next");
    assert!(run_one(&heir));
    let mut finished = Vec::new();
    pool.collect(&mut finished);
    assert_eq!((finished.len(), finished[0].slot), (1, slot));
    assert_eq!(result(pool, finished[0]), b"txen");
}

fn enter(run: &mut dyn FnMut(Scenario<'_>)) {
    let mut pool = Dispatcher::create(2).unwrap();
    let board = Arc::clone(pool.board());
    let slot = publish(&mut pool, b"task");
    run(Scenario {
        name: "enter",
        prepare: Box::new(|| {}),
        operation: Box::new(|| {
            Worker::enter(Arc::clone(&board), std::process::id()).unwrap().advance(Stage::Serving);
        }),
        look: None,
        check: Box::new(move |pid, _| {
            check_tasks(&mut pool, pid, &[(slot, b"task")], false);
            // All records but the heir's are free.
            assert!((0..2).filter(|number| pool.board().record(*number).0 != 0).count() <= 1);
        }),
    });
}

fn serve(run: &mut dyn FnMut(Scenario<'_>)) {
    serving(run, "claim, run and hand in", false);
}

fn serve_awaited(run: &mut dyn FnMut(Scenario<'_>)) {
    serving(run, "claim, run and hand in, awaited", true);
}

fn serving(run: &mut dyn FnMut(Scenario<'_>), name: &'static str, awaited: bool) {
    let mut pool = Dispatcher::create(2).unwrap();
    let first = publish(&mut pool, b"first");
    let second = publish(&mut pool, b"second");
    let third = publish(&mut pool, &[7; 1000]);
    let board = Arc::clone(pool.board());
    if awaited {
        assert!(board.ask(3));
    }
    run(Scenario {
        name,
        prepare: Box::new(|| {}),
        operation: Box::new(|| {
            let worker = Worker::enter(Arc::clone(&board), std::process::id()).unwrap();
            worker.advance(Stage::Serving);
            while run_one(&worker) {}
        }),
        look: None,
        check: Box::new(move |pid, done| {
            let payloads: [(u32, &[u8]); 3] = [(first, b"first"), (second, b"second"), (third, &[7; 1000])];
            check_tasks(&mut pool, pid, &payloads, done);
        }),
    });
}

/// The result is longer than its place, and nobody answers: the owner comes too late.
fn ask(run: &mut dyn FnMut(Scenario<'_>)) {
    let mut pool = Dispatcher::create(2).unwrap();
    let slot = publish(&mut pool, b"task");
    let board = Arc::clone(pool.board());
    run(Scenario {
        name: "ask for room",
        prepare: Box::new(|| {}),
        operation: Box::new(|| {
            let worker = Worker::enter(Arc::clone(&board), std::process::id()).unwrap();
            worker.advance(Stage::Serving);
            let Some(Next::Task(claim)) = worker.claim() else { panic!("no task") };
            worker.start(&claim).unwrap();
            worker.ask_for_room(&claim, 5000).unwrap();
            let _ = worker.granted(&claim, Deadline::after(Duration::from_millis(1)));
        }),
        look: None,
        check: Box::new(move |pid, _| check_tasks(&mut pool, pid, &[(slot, b"task")], false)),
    });
}

/// The owner, a thread here, answers while the worker is stepped through its question and what follows.
fn granted(run: &mut dyn FnMut(Scenario<'_>)) {
    let mut pool = Dispatcher::create(2).unwrap();
    let slot = publish(&mut pool, b"task");
    let board = Arc::clone(pool.board());
    let (pool, ended) = (Mutex::new((pool, Vec::new())), AtomicBool::new(false));
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                if board.has_news() {
                    let (pool, finished) = &mut *pool.lock().unwrap();
                    pool.collect(finished);
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        run(Scenario {
            name: "be granted room and use it",
            prepare: Box::new(|| {}),
            operation: Box::new(|| {
                let worker = Worker::enter(Arc::clone(&board), std::process::id()).unwrap();
                worker.advance(Stage::Serving);
                let Some(Next::Task(claim)) = worker.claim() else { panic!("no task") };
                let mut answer = worker.start(&claim).unwrap().to_vec();
                answer.reverse();
                worker.ask_for_room(&claim, 5000).unwrap();
                let room = worker.granted(&claim, Deadline::after(Duration::from_secs(5)));
                assert_eq!(room, Some(true));
                assert!(worker.capacity(&claim) >= 5000);
                worker.write(&claim, &[&answer]).unwrap();
                worker.finish(&claim, 3).unwrap();
            }),
            look: None,
            check: Box::new(|pid, done| {
                ended.store(true, Ordering::Release);
                while !owner.is_finished() {
                    thread::yield_now();
                }
                let (pool, finished) = &mut *pool.lock().unwrap();
                check_tasks_after(core::mem::take(finished), pool, pid, &[(slot, b"task")], done);
            }),
        });
        ended.store(true, Ordering::Release);
    });
}

/// A worker that has found nothing sleeps until a task is published, which a thread here does.
fn woken(run: &mut dyn FnMut(Scenario<'_>)) {
    let mut pool = Dispatcher::create(2).unwrap();
    let board = Arc::clone(pool.board());
    let reserved = pool.reserve(&Task { kind: 1, function: None, len: 4, room: 0 }).unwrap().expect("a slot");
    reserved.write(&board, &[b"task"]).unwrap();
    let slot = reserved.slot;
    let killed = AtomicBool::new(false);
    let pool = Mutex::new(pool);
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            // Time for the worker to fall asleep, once it is there.
            let mut left = 150;
            while !killed.load(Ordering::Acquire) && left > 0 {
                thread::sleep(Duration::from_micros(200));
                left -= u32::from(board.serving() > 0);
            }
            pool.lock().unwrap().publish(reserved);
            board.ring(1);
        });
        run(Scenario {
            name: "sleep, be woken and claim",
            prepare: Box::new(|| {}),
            operation: Box::new(|| {
                let worker = Worker::enter(Arc::clone(&board), std::process::id()).unwrap();
                worker.advance(Stage::Serving);
                while !run_one(&worker) {
                    let _ = worker.wait(Deadline::after(Duration::from_millis(500)));
                }
            }),
            look: None,
            check: Box::new(|pid, done| {
                killed.store(true, Ordering::Release);
                while !owner.is_finished() {
                    thread::yield_now();
                }
                check_tasks(&mut pool.lock().unwrap(), pid, &[(slot, b"task")], done);
            }),
        });
        killed.store(true, Ordering::Release);
    });
}

/// The owner is killed while it publishes: what the workers find is whole.
fn publish_tasks(run: &mut dyn FnMut(Scenario<'_>)) {
    let mut pool = Dispatcher::create(2).unwrap();
    publish(&mut pool, b"first");
    let board = Arc::clone(pool.board());
    let worker = worker(&pool);
    let pool = Mutex::new(pool);
    run(Scenario {
        name: "publish, as the owner",
        prepare: Box::new(|| {}),
        operation: Box::new(|| {
            let pool = &mut *pool.lock().unwrap();
            publish(pool, b"second");
            publish(pool, &[7; 1000]);
            board.ring(2);
        }),
        look: None,
        check: Box::new(move |_, done| {
            let mut found = Vec::new();
            while let Some(next) = worker.claim() {
                let Next::Task(claim) = next else { break };
                found.push(worker.start(&claim).unwrap().to_vec());
                worker.write(&claim, &[b"done"]).unwrap();
                worker.finish(&claim, 3).unwrap();
            }
            let published: [&[u8]; 3] = [b"first", b"second", &[7; 1000]];
            assert!(found.len() <= 3 && (!done || found.len() == 3));
            assert!(!found.is_empty() && found.iter().zip(published).all(|(found, published)| found == published));
        }),
    });
}

fn report(run: &mut dyn FnMut(Scenario<'_>)) {
    let mut pool = Dispatcher::create(2).unwrap();
    let board = Arc::clone(pool.board());
    run(Scenario {
        name: "report a failing start",
        prepare: Box::new(|| {}),
        operation: Box::new(|| {
            Worker::enter(Arc::clone(&board), std::process::id()).unwrap().report("Traceback: no database").unwrap();
        }),
        look: None,
        check: Box::new(move |pid, done| {
            let text = pool.board().report();
            assert!(text.as_deref().is_none_or(|text| text == "Traceback: no database") && (!done || text.is_some()));
            check_tasks(&mut pool, pid, &[], false);
        }),
    });
}
