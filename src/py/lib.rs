//! `rsmp._rsmp`: a table of contents. Each file serves the Python module of the same name.

mod block;
mod error;
mod pickle;
mod shared_memory;

#[pyo3::pymodule(gil_used = false)]
mod _rsmp {
    #[pymodule_export]
    use super::shared_memory::Segment;
    #[pymodule_export]
    use super::shared_memory::ShareableList;
}
