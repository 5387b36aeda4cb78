//! Tasks to worker threads: handed over as they are, without pickling.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use rsmp_core::Deadline;

use super::Call;
use super::job::Job;

#[derive(Default)]
pub(super) struct Shop {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    orders: VecDeque<Order>,
    /// Workers asleep.
    idle: u32,
    /// Orders taken and not finished.
    running: u32,
    closed: bool,
    /// Workers that have not failed.
    workers: u32,
}

/// A task for a thread.
pub(super) struct Order {
    pub(super) job: Arc<Job>,
    pub(super) index: usize,
    pub(super) call: Call,
    pub(super) function: Py<PyAny>,
    pub(super) payload: Py<PyAny>,
}

pub(super) enum Next {
    Order(Order),
    Leave,
}

impl Shop {
    pub(super) fn new(workers: u32) -> Self {
        let shop = Self::default();
        shop.state.lock().workers = workers;
        shop
    }

    /// Counts a worker out; returns whether it was the last.
    pub(super) fn lost_one(&self) -> bool {
        let mut state = self.state.lock();
        state.workers = state.workers.saturating_sub(1);
        state.workers == 0
    }

    pub(super) fn submit(&self, order: Order) {
        let mut state = self.state.lock();
        state.orders.push_back(order);
        if state.idle > 0 {
            self.changed.notify_one();
        }
    }

    /// The oldest order; never waits.
    pub(super) fn take(&self) -> Option<Next> {
        let mut state = self.state.lock();
        match state.orders.pop_front() {
            Some(order) => {
                state.running += 1;
                Some(Next::Order(order))
            }
            None if state.closed => Some(Next::Leave),
            None => None,
        }
    }

    /// Sleeps until there may be an order, until `deadline` at the most.
    pub(super) fn wait(&self, deadline: Deadline) {
        let mut state = self.state.lock();
        if !state.orders.is_empty() || state.closed {
            return;
        }
        state.idle += 1;
        match deadline.remaining() {
            Some(left) => drop(self.changed.wait_until(&mut state, Instant::now() + left)),
            None => self.changed.wait(&mut state),
        }
        state.idle -= 1;
    }

    /// A worker is done with its order.
    pub(super) fn finished(&self) {
        self.state.lock().running -= 1;
    }

    /// Orders that are out.
    pub(super) fn in_use(&self) -> u32 {
        let state = self.state.lock();
        state.orders.len() as u32 + state.running
    }

    /// Tells the workers to leave once no order is left.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether there is nothing to do, not even to leave.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.orders.is_empty() && !state.closed
    }

    /// Takes away the orders that nobody has begun; returns their jobs.
    pub(super) fn clear(&self) -> Vec<Arc<Job>> {
        let orders = std::mem::take(&mut self.state.lock().orders);
        orders.iter().map(|order| Arc::clone(&order.job)).collect()
    }
}
