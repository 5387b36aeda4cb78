//! `rsmp._rsmp`: a table of contents. Each file serves the Python module of the same name.

mod arena;
mod block;
mod buffer;
mod bytes;
mod cells;
mod channel;
mod child;
mod codec;
mod connection;
mod deferred;
mod error;
mod forkserver;
mod heap;
mod hooks;
mod inspect;
mod message;
mod numbers;
mod pickle;
mod pool;
mod process;
mod pymalloc;
mod queues;
mod reduction;
mod resource_tracker;
mod scalar;
mod shared_memory;
mod sharedctypes;
mod synchronize;
mod threading;
mod version;
mod wait;

#[pyo3::pymodule(gil_used = false)]
mod _rsmp {
    #[pymodule_export]
    use super::arena::forked;
    #[pymodule_export]
    use super::cells::fill_array;
    #[pymodule_export]
    use super::codec::{decode_for_test, encode_for_test};
    #[pymodule_export]
    use super::connection::Connection;
    #[pymodule_export]
    use super::connection::pipe;
    #[pymodule_export]
    use super::forkserver::ForkRequest;
    #[pymodule_export]
    use super::forkserver::ForkServer;
    #[pymodule_export]
    use super::heap::Block;
    #[pymodule_export]
    use super::heap::memory_file;
    #[pymodule_export]
    use super::inspect::address_here;
    #[pymodule_export]
    use super::inspect::family;
    #[pymodule_export]
    use super::inspect::memory_files;
    #[pymodule_export]
    use super::inspect::read_locks;
    #[pymodule_export]
    use super::inspect::read_queue;
    #[pymodule_export]
    use super::inspect::read_waits;
    #[pymodule_export]
    use super::pool::channel::PoolChannel;
    #[pymodule_export]
    use super::pool::engine::PoolEngine;
    #[pymodule_export]
    use super::pool::result::PoolHandle;
    #[pymodule_export]
    use super::pool::result::PoolIterator;
    #[pymodule_export]
    use super::pool::result::PoolResult;
    #[pymodule_export]
    use super::process::Child;
    #[pymodule_export]
    use super::process::announce;
    #[pymodule_export]
    use super::process::fork_together;
    #[pymodule_export]
    use super::process::has_reader;
    #[pymodule_export]
    use super::process::message_pair;
    #[pymodule_export]
    use super::process::open_self;
    #[pymodule_export]
    use super::process::payload_file;
    #[pymodule_export]
    use super::process::request_process;
    #[pymodule_export]
    use super::process::share_one_arena;
    #[pymodule_export]
    use super::process::tie_to_lifeline;
    #[pymodule_export]
    use super::queues::End;
    #[pymodule_export]
    use super::queues::Queue;
    #[pymodule_export]
    use super::queues::QueueBase;
    #[pymodule_export]
    use super::queues::Reader;
    #[pymodule_export]
    use super::queues::SimpleQueue;
    #[pymodule_export]
    use super::queues::Writer;
    #[pymodule_export]
    use super::reduction::receive_descriptors;
    #[pymodule_export]
    use super::reduction::send_descriptors;
    #[pymodule_export]
    use super::resource_tracker::Tracker;
    #[pymodule_export]
    use super::shared_memory::Segment;
    #[pymodule_export]
    use super::shared_memory::ShareableList;
    #[pymodule_export]
    use super::sharedctypes::Synchronized;
    #[pymodule_export]
    use super::sharedctypes::SynchronizedArray;
    #[pymodule_export]
    use super::sharedctypes::SynchronizedBase;
    #[pymodule_export]
    use super::synchronize::Barrier;
    #[pymodule_export]
    use super::synchronize::Condition;
    #[pymodule_export]
    use super::synchronize::Event;
    #[pymodule_export]
    use super::synchronize::Lock;
    #[pymodule_export]
    use super::synchronize::RLock;
    #[pymodule_export]
    use super::synchronize::Semaphore;
    #[pymodule_export]
    use super::wait::wait;

    #[pymodule_init]
    fn complete(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        super::inspect::name_processes(pyo3::Bound::py(module))?;
        super::sharedctypes::complete(pyo3::Bound::py(module))?;
        super::synchronize::complete(pyo3::Bound::py(module))
    }
}
