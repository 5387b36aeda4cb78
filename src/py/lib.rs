//! `rsmp._rsmp`: a table of contents. Each file serves the Python module of the same name.

mod block;
mod cells;
mod error;
mod heap;
mod pickle;
mod shared_memory;
mod sharedctypes;

#[pyo3::pymodule(gil_used = false)]
mod _rsmp {
    #[pymodule_export]
    use super::heap::Block;
    #[pymodule_export]
    use super::heap::memory_file;
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
}
