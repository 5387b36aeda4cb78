//! `rsmp._rsmp`: a table of contents. Each file serves the Python module of the same name.

mod block;
mod error;
mod pickle;

#[pyo3::pymodule(gil_used = false)]
mod _rsmp {}
