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

fn task(payload: &[u8]) -> Task {
    Task { kind: 7, function: None, len: payload.len() as u64, room: 0 }
}

fn publish_with(pool: &mut Dispatcher, task: &Task, payload: &[u8]) -> Option<u32> {
    let reserved = pool.reserve(task).expect("memory")?;
    reserved.write(pool.board(), &[payload]).expect("room");
    let slot = reserved.slot;
    pool.publish(reserved);
    Some(slot)
}

fn publish(pool: &mut Dispatcher, payload: &[u8]) -> Option<u32> {
    publish_with(pool, &task(payload), payload)
}

fn finish(worker: &Worker, claim: &Claim, outcome: u32, result: &[u8]) {
    worker.write(claim, &[result]).expect("room");
    worker.finish(claim, outcome).expect("finished");
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
            let bytes = pool.result(collected.slot).expect("a result").bytes(pool.board()).expect("its bytes").to_vec();
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
    let slot =
        publish_with(&mut pool, &Task { function: Some(function), ..task(b"argument") }, b"argument").expect("room");
    let claim = claim(&worker);
    assert_eq!(claim.kind, 7);
    let (place, id) = claim.function.expect("a function");
    assert_eq!(id, function.id);
    assert_eq!(worker.function(place).expect("a function"), b"function");
    assert_eq!(worker.start(&claim).expect("a payload"), b"argument");
    assert_eq!(worker.claim(), None);
    finish(&worker, &claim, 3, b"result");
    assert_eq!(collect(&mut pool), [(Collected { slot, outcome: 3 }, b"result".to_vec())]);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_long_result_asks_for_room() {
    let mut pool = pool();
    let worker = enter(&pool, 100);
    publish(&mut pool, b"x").expect("room");
    let claim = claim(&worker);
    worker.start(&claim).expect("a payload");
    assert_eq!(worker.capacity(&claim), INLINE as u64);
    let result = vec![5; 1 << 20];
    worker.ask_for_room(&claim, result.len() as u64).expect("asked");
    assert_eq!(worker.granted(&claim, Deadline::PASSED), None);
    assert!(collect(&mut pool).is_empty());
    assert_eq!(worker.granted(&claim, Deadline::NEVER), Some(true));
    finish(&worker, &claim, 0, &result);
    assert_eq!(collect(&mut pool)[0].1, result);
}

#[test]
fn room_that_there_is_not_is_refused() {
    let mut pool = pool();
    let worker = enter(&pool, 100);
    publish(&mut pool, b"x").expect("room");
    let claim = claim(&worker);
    worker.start(&claim).expect("a payload");
    worker.ask_for_room(&claim, 1 << 60).expect("asked");
    assert!(collect(&mut pool).is_empty());
    assert_eq!(worker.granted(&claim, Deadline::NEVER), Some(false));
    finish(&worker, &claim, 1, b"no memory");
    assert_eq!(collect(&mut pool)[0].1, b"no memory");
}

#[test]
fn results_are_collected_before_tasks_take_new_memory() {
    let mut pool = pool();
    let worker = enter(&pool, 1);
    let mut published = 0;
    while !pool.should_collect() {
        publish(&mut pool, b"task").expect("a slot");
        published += 1;
        if published == 2 {
            finish(&worker, &claim(&worker), 0, b"result");
        }
    }
    assert!(published > 2 && published < SLOTS);
    assert_eq!(collect(&mut pool).len(), 1);
    assert!(!pool.should_collect());
    publish(&mut pool, b"task").expect("the slot that was collected");
    // Nothing to collect: memory has to be taken.
    assert!(!pool.should_collect());
    publish(&mut pool, b"task").expect("a new slot");
}

#[test]
fn slots_run_out_and_come_back() {
    let mut pool = pool();
    for _ in 0..SLOTS {
        assert!(publish(&mut pool, b"x").is_some());
    }
    assert_eq!(publish(&mut pool, b"x"), None);
    let worker = enter(&pool, 100);
    let claim = claim(&worker);
    finish(&worker, &claim, 0, b"");
    assert_eq!(collect(&mut pool).len(), 1);
    assert!(publish(&mut pool, b"x").is_some());
}

#[test]
fn what_a_dead_worker_leaves() {
    let mut pool = pool();
    let (dead, other) = (enter(&pool, 100), enter(&pool, 101));
    dead.advance(Stage::Serving);
    let slots: Vec<_> = (0..4).map(|_| publish(&mut pool, b"x").expect("room")).collect();
    // Returned, running, asking for room, claimed.
    let returned = claim(&dead);
    finish(&dead, &returned, 0, b"done");
    let running = claim(&dead);
    dead.start(&running).expect("a payload");
    let asking = claim(&dead);
    dead.start(&asking).expect("a payload");
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
fn a_lost_task_goes_out_again_whole() {
    for wanted in [0, 1 << 20] {
        let mut pool = pool();
        let payload = vec![3; 50_000];
        let slot = publish(&mut pool, &payload).expect("room");
        let dead = enter(&pool, 100);
        let lost = claim(&dead);
        dead.start(&lost).expect("a payload");
        if wanted > 0 {
            // It dies with a place of its own for the result, or in the middle of writing over the payload.
            dead.ask_for_room(&lost, wanted).expect("asked");
            assert!(collect(&mut pool).is_empty());
        }
        dead.write(&lost, &[b"half a result"]).expect("room");
        let estate = pool.bury(100, &mut Vec::new());
        assert_eq!(estate.lost, [slot]);
        assert!(pool.publish_again(slot, &vec![0; 2 << 20]).is_err(), "it never was that long");
        pool.publish_again(slot, &payload).expect("room");
        let worker = enter(&pool, 101);
        let again = claim(&worker);
        assert_eq!(again.kind, 7);
        assert_eq!(worker.start(&again).expect("a payload"), payload);
        finish(&worker, &again, 4, b"result");
        assert_eq!(collect(&mut pool), [(Collected { slot, outcome: 4 }, b"result".to_vec())]);
        assert_eq!(pool.in_use(), 0);
    }
}

#[test]
fn closing_lets_the_tasks_finish() {
    let mut pool = pool();
    let worker = enter(&pool, 100);
    publish(&mut pool, b"x").expect("room");
    pool.board().close(Closing::Finish);
    let _ = claim(&worker);
    assert_eq!(worker.claim(), Some(Next::Leave));
    publish(&mut pool, b"x").expect("room");
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
                loop {
                    match worker.claim() {
                        Some(Next::Task(claim)) => {
                            let bytes = worker.start(&claim).expect("a payload").to_vec();
                            finish(&worker, &claim, 0, &bytes);
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
        while next < TASKS && publish(&mut pool, &next.to_le_bytes()).is_some() {
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
                self.published += usize::from(publish(&mut self.pool, &vec![1; len]).is_some());
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
                    finish(worker, &claim, 0, &vec![2; len]);
                }
            }
            Step::Ask(which) => {
                if let Some((claim, asked @ false)) = self.hands[which].last_mut() {
                    *asked = true;
                    self.workers[which].start(claim).expect("a payload");
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
                finish(worker, &claim, 0, b"");
            }
        }
        while let Some(Next::Task(claim)) = self.workers[0].claim() {
            finish(&self.workers[0], &claim, 0, b"");
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
