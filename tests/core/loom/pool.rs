//! As much of a pool as its bells need: tasks without payload, run by workers that watch, sleep, die and are buried.

#[path = "../../../src/core/pool/board.rs"]
mod board;
#[path = "../../../src/core/pool/layout.rs"]
mod layout;
#[path = "../../../src/core/pool/worker.rs"]
mod worker;

use std::sync::Arc;

use self::board::Board;
use self::layout::{
    CLOSING_AT, Closing, Kind, SLOT_FUNCTION, SLOT_FUNCTION_ID, SLOT_KIND, SLOT_NEXT, SLOT_OUTCOME, Stage, State,
};
use self::worker::{Next, Watched, Worker};
use crate::atomic::Ordering;
use crate::clock::Deadline;
use crate::sys::descriptor;

/// Process ids of the workers.
const ALIVE: u32 = 2;
const DEAD: u32 = 1;

#[derive(Debug)]
pub(crate) struct Pool {
    board: Arc<Board>,
}

impl Pool {
    pub(crate) fn new(workers: u32, tasks: u64) -> Self {
        let board = Board::create(workers, tasks as u32).expect("it cannot fail");
        // The words that the threads will share.
        let _ = (board.bell(), board.sleepers(), board.spinner(), board.waiting(), board.calls());
        let _ = (board.head(), board.tail(), board.done(), board.region.word32(CLOSING_AT));
        for worker in 0..workers {
            let _ = (board.pid_word(worker), board.stage_word(worker));
        }
        for task in 0..tasks {
            let at = board.layout.slot(task as u32);
            let _ = (board.entry(task), board.state(task as u32));
            for word in [SLOT_NEXT, SLOT_KIND, SLOT_OUTCOME] {
                let _ = board.region.word32(at + word);
            }
            for word in [SLOT_FUNCTION, SLOT_FUNCTION_ID] {
                let _ = board.region.word64(at + word);
            }
        }
        Self { board: Arc::new(board) }
    }

    /// Publishes a task in the slot of its number, as `Dispatcher::enqueue` does, and rings.
    pub(crate) fn publish(&self, task: u64) {
        let board = &self.board;
        board.state(task as u32).store(State::new(task, 0, Kind::Ready).0, Ordering::Release);
        board.entry(task).store(task, Ordering::Release);
        board.tail().store(task + 1, Ordering::SeqCst);
        board.ring(1);
    }

    /// Sleeps as the owner's threads do until `count` tasks are finished, and does `look` whenever it wakes.
    pub(crate) fn await_results(&self, count: u32, look: impl Fn()) {
        while self.board.ask(count) {
            descriptor::sleep(&self.board.event());
            self.board.ask_no_more();
            self.board.clear_event().expect("it cannot fail");
            look();
        }
    }

    pub(crate) fn leave(&self) {
        self.board.close(Closing::Finish);
    }

    /// Wakes the owner, as the descriptor of a process does that has ended.
    pub(crate) fn kick(&self) {
        self.board.kick().expect("it cannot fail");
    }

    /// What `Dispatcher::bury` does about a worker that had no task.
    pub(crate) fn bury(&self) {
        let board = &self.board;
        let worker = self.dead();
        let _ = board.spinner().compare_exchange(worker + 1, 0, Ordering::SeqCst, Ordering::Relaxed);
        board.stage_word(worker).store(Stage::Vacant as u32, Ordering::Release);
        board.pid_word(worker).store(0, Ordering::Release);
        board.ring_all();
    }

    fn dead(&self) -> u32 {
        self.board.find(DEAD).expect("it has entered")
    }

    fn enter(&self, pid: u32) -> Worker {
        Worker::enter(Arc::clone(&self.board), pid).expect("room")
    }

    /// What a worker does.
    pub(crate) fn serve(&self) {
        let worker = self.enter(ALIVE);
        loop {
            match worker.claim() {
                Some(Next::Leave) => return,
                Some(Next::Task(claim)) => worker.finish(&claim, 0).expect("it cannot fail"),
                None => {
                    if worker.watch() != Watched::Something {
                        let _ = worker.wait(Deadline::NEVER);
                    }
                }
            }
        }
    }

    /// A worker that sleeps, and is killed before it does anything about having been woken.
    pub(crate) fn die_woken(&self) {
        let worker = self.enter(DEAD);
        let _ = worker.wait(Deadline::NEVER);
    }

    /// A worker that is killed while it is the one that watches.
    pub(crate) fn die_watching(&self) {
        let _worker = self.enter(DEAD);
        let _ = self.board.spinner().compare_exchange(0, self.dead() + 1, Ordering::SeqCst, Ordering::Relaxed);
    }
}
