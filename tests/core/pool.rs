//! The pool's protocol: claims, results, room, burials.

use std::sync::Arc;

use proptest::prelude::*;
use rsmp_core::Deadline;
use rsmp_core::pool::layout::SLOTS;
use rsmp_core::pool::worker::{Claim, Next};
use rsmp_core::pool::{Closing, Collected, Dispatcher, INLINE, Stage, Task, Worker};

fn pool() -> Dispatcher {
    Dispatcher::create(4).expect("a board")
}

fn task(payload: &[u8]) -> Task<'_> {
    Task { kind: 7, function: None, payload, room: 0 }
}

fn enter(pool: &Dispatcher, pid: u32) -> Worker {
    Worker::enter(Arc::clone(pool.board()), pid).expect("a record")
}

fn claim(worker: &Worker) -> Claim {
    match worker.claim() {
        Some(Next::Task(claim)) => claim,
        other => panic!("{other:?}"),
    }
}

fn collect(pool: &mut Dispatcher) -> Vec<(Collected, Vec<u8>)> {
    let mut finished = Vec::new();
    pool.collect(&mut finished);
    finished
        .into_iter()
        .map(|collected| {
            let mut bytes = Vec::new();
            pool.read(collected.slot, &mut bytes).expect("a result");
            pool.release(collected.slot);
            (collected, bytes)
        })
        .collect()
}

#[test]
fn a_task_goes_out_and_its_result_comes_back() {
    let mut pool = pool();
    let worker = enter(&pool, 100);
    let function = pool.store_function(b"function").expect("room");
    let slot = pool.publish(&Task { function: Some(function), ..task(b"argument") }).expect("ok").expect("room");
    let claim = claim(&worker);
    assert_eq!(claim.kind, 7);
    let (place, id) = claim.function.expect("a function");
    assert_eq!(id, function.id);
    let mut bytes = Vec::new();
    worker.read_function(place, &mut bytes).expect("a function");
    assert_eq!(bytes, b"function");
    worker.start(&claim, &mut bytes).expect("a payload");
    assert_eq!(bytes, b"argument");
    assert_eq!(worker.claim(), None);
    worker.finish(&claim, 3, b"result").expect("finished");
    assert_eq!(collect(&mut pool), [(Collected { slot, outcome: 3 }, b"result".to_vec())]);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_long_result_asks_for_room() {
    let mut pool = pool();
    let worker = enter(&pool, 100);
    pool.publish(&task(b"x")).expect("ok").expect("room");
    let claim = claim(&worker);
    worker.start(&claim, &mut Vec::new()).expect("a payload");
    assert_eq!(worker.capacity(&claim), INLINE as u64);
    let result = vec![5; 1 << 20];
    worker.ask_for_room(&claim, result.len() as u64).expect("asked");
    assert_eq!(worker.granted(&claim, Deadline::PASSED), None);
    assert!(collect(&mut pool).is_empty());
    assert_eq!(worker.granted(&claim, Deadline::NEVER), Some(true));
    worker.finish(&claim, 0, &result).expect("finished");
    assert_eq!(collect(&mut pool)[0].1, result);
}

#[test]
fn room_that_there_is_not_is_refused() {
    let mut pool = pool();
    let worker = enter(&pool, 100);
    pool.publish(&task(b"x")).expect("ok").expect("room");
    let claim = claim(&worker);
    worker.start(&claim, &mut Vec::new()).expect("a payload");
    worker.ask_for_room(&claim, 1 << 60).expect("asked");
    assert!(collect(&mut pool).is_empty());
    assert_eq!(worker.granted(&claim, Deadline::NEVER), Some(false));
    worker.finish(&claim, 1, b"no memory").expect("finished");
    assert_eq!(collect(&mut pool)[0].1, b"no memory");
}

#[test]
fn slots_run_out_and_come_back() {
    let mut pool = pool();
    for _ in 0..SLOTS {
        assert!(pool.publish(&task(b"x")).expect("ok").is_some());
    }
    assert_eq!(pool.publish(&task(b"x")).expect("ok"), None);
    let worker = enter(&pool, 100);
    let claim = claim(&worker);
    worker.finish(&claim, 0, b"").expect("finished");
    assert_eq!(collect(&mut pool).len(), 1);
    assert!(pool.publish(&task(b"x")).expect("ok").is_some());
}

#[test]
fn what_a_dead_worker_leaves() {
    let mut pool = pool();
    let (dead, other) = (enter(&pool, 100), enter(&pool, 101));
    dead.advance(Stage::Serving);
    let slots: Vec<_> = (0..4).map(|_| pool.publish(&task(b"x")).expect("ok").expect("room")).collect();
    // Returned, running, asking for room, claimed.
    let returned = claim(&dead);
    dead.finish(&returned, 0, b"done").expect("finished");
    let running = claim(&dead);
    dead.start(&running, &mut Vec::new()).expect("a payload");
    let asking = claim(&dead);
    dead.start(&asking, &mut Vec::new()).expect("a payload");
    dead.ask_for_room(&asking, 1000).expect("asked");
    let _ = claim(&dead);
    assert_eq!(other.claim(), None);

    let mut finished = Vec::new();
    let estate = pool.bury(100, &mut finished);
    assert_eq!(finished, [Collected { slot: slots[0], outcome: 0 }]);
    assert_eq!((estate.stage, estate.lost, estate.again), (Some(Stage::Serving), vec![slots[1], slots[2]], 1));
    // The claimed one is there for somebody else, once.
    claim(&other);
    assert_eq!(other.claim(), None);
    // The record is free for a replacement.
    assert_eq!(pool.board().find(100), None);
    enter(&pool, 102);
}

#[test]
fn closing_lets_the_tasks_finish() {
    let mut pool = pool();
    let worker = enter(&pool, 100);
    pool.publish(&task(b"x")).expect("ok").expect("room");
    pool.board().close(Closing::Finish);
    let _ = claim(&worker);
    assert_eq!(worker.claim(), Some(Next::Leave));
    pool.publish(&task(b"x")).expect("ok").expect("room");
    pool.board().close(Closing::Leave);
    assert_eq!(worker.claim(), Some(Next::Leave));
}

#[test]
fn every_task_is_run_once_by_concurrent_workers() {
    const TASKS: u64 = 20_000;
    let mut pool = pool();
    let workers: Vec<_> = (0..3)
        .map(|number| {
            let worker = enter(&pool, 100 + number);
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                loop {
                    match worker.claim() {
                        Some(Next::Task(claim)) => {
                            worker.start(&claim, &mut bytes).expect("a payload");
                            worker.finish(&claim, 0, &bytes).expect("finished");
                        }
                        Some(Next::Leave) => return,
                        None => drop(worker.wait(Deadline::from_seconds(Some(0.1)))),
                    }
                }
            })
        })
        .collect();
    let mut seen = vec![0_u32; TASKS as usize];
    let (mut next, mut back) = (0_u64, 0_u64);
    while back < TASKS {
        while next < TASKS && pool.publish(&task(&next.to_le_bytes())).expect("ok").is_some() {
            next += 1;
            pool.board().ring(1);
        }
        for (_, bytes) in collect(&mut pool) {
            let which = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            seen[which as usize] += 1;
            back += 1;
        }
        if pool.board().ask(1) {
            std::thread::yield_now();
            pool.board().ask_no_more();
        }
    }
    assert!(seen.iter().all(|&count| count == 1));
    pool.board().close(Closing::Finish);
    for worker in workers {
        worker.join().expect("no panic");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Claim(usize),
    Finish(usize, usize),
    Ask(usize),
    Collect,
    Die(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let worker = 0..3_usize;
    let step = prop_oneof![
        4 => (0..2000_usize).prop_map(Step::Publish),
        4 => worker.clone().prop_map(Step::Claim),
        3 => (worker.clone(), 0..2000_usize).prop_map(|(worker, len)| Step::Finish(worker, len)),
        1 => worker.clone().prop_map(Step::Ask),
        2 => Just(Step::Collect),
        1 => worker.prop_map(Step::Die),
    ];
    proptest::collection::vec(step, 1..200)
}

/// A pool, its workers and the tasks in their hands, with whether they have asked for room.
struct Model {
    pool: Dispatcher,
    pids: [u32; 3],
    workers: Vec<Worker>,
    hands: Vec<Vec<(Claim, bool)>>,
    published: usize,
    done: usize,
    lost: usize,
}

impl Model {
    fn new() -> Self {
        let pool = pool();
        let pids = [100, 101, 102];
        let workers = pids.iter().map(|&pid| enter(&pool, pid)).collect();
        let hands = (0..3).map(|_| Vec::new()).collect();
        Self { pool, pids, workers, hands, published: 0, done: 0, lost: 0 }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish(len) => {
                self.published += usize::from(self.pool.publish(&task(&vec![1; len])).expect("ok").is_some());
            }
            Step::Claim(which) => {
                if let Some(Next::Task(claim)) = self.workers[which].claim() {
                    self.hands[which].push((claim, false));
                }
            }
            Step::Finish(which, len) => {
                let worker = &self.workers[which];
                let answered =
                    |hand: &mut (Claim, bool)| !hand.1 || worker.granted(&hand.0, Deadline::PASSED).is_some();
                if let Some((claim, _)) = self.hands[which].pop_if(answered) {
                    let len = len.min(worker.capacity(&claim) as usize);
                    worker.finish(&claim, 0, &vec![2; len]).expect("finished");
                }
            }
            Step::Ask(which) => {
                if let Some((claim, asked @ false)) = self.hands[which].last_mut() {
                    *asked = true;
                    self.workers[which].start(claim, &mut Vec::new()).expect("a payload");
                    self.workers[which].ask_for_room(claim, 5000).expect("asked");
                }
            }
            Step::Collect => self.done += collect(&mut self.pool).len(),
            Step::Die(which) => self.die(which),
        }
    }

    fn die(&mut self, which: usize) {
        let mut finished = Vec::new();
        let estate = self.pool.bury(self.pids[which], &mut finished);
        assert_eq!(estate.lost.len() + estate.again, self.hands[which].len());
        self.lost += estate.lost.len();
        self.done += finished.len();
        for slot in finished.iter().map(|collected| collected.slot).chain(estate.lost) {
            self.pool.release(slot);
        }
        self.hands[which].clear();
        self.pids[which] += 3;
        self.workers[which] = enter(&self.pool, self.pids[which]);
    }

    fn finish(&mut self) {
        self.done += collect(&mut self.pool).len();
        for (worker, hand) in self.workers.iter().zip(&mut self.hands) {
            for (claim, _) in hand.drain(..) {
                worker.finish(&claim, 0, b"").expect("finished");
            }
        }
        while let Some(Next::Task(claim)) = self.workers[0].claim() {
            self.workers[0].finish(&claim, 0, b"").expect("finished");
        }
        self.done += collect(&mut self.pool).len();
    }
}

proptest! {
    /// Whatever is published, claimed and killed in whatever order: each task ends once, as done or as lost.
    #[test]
    fn each_task_ends_once(steps in steps()) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
        }
        model.finish();
        prop_assert_eq!(model.done + model.lost, model.published);
        prop_assert_eq!(model.pool.in_use(), 0);
    }
}
