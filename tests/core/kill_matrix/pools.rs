//! Pools: entering, claiming, running, handing results in, asking for room.

use std::sync::Arc;

use rsmp_core::Deadline;
use rsmp_core::pool::worker::Next;
use rsmp_core::pool::{Collected, Dispatcher, Stage, Task, Worker};

use super::{Maker, Scenario};

pub(crate) const ALL: &[Maker] = &[
    ("pool: enter", enter),
    ("pool: claim, run and hand in", serve),
    ("pool: claim, run and hand in, awaited", serve_awaited),
    ("pool: ask for room", ask),
    ("pool: report a failing start", report),
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
    let mut finished = Vec::new();
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
            let _ = worker.granted(&claim, Deadline::after(core::time::Duration::from_millis(1)));
        }),
        check: Box::new(move |pid, _| check_tasks(&mut pool, pid, &[(slot, b"task")], false)),
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
        check: Box::new(move |pid, done| {
            let text = pool.board().report();
            assert!(text.as_deref().is_none_or(|text| text == "Traceback: no database") && (!done || text.is_some()));
            check_tasks(&mut pool, pid, &[], false);
        }),
    });
}
