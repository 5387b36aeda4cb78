//! Makes the interpreter's properties (`Py_GIL_DISABLED`, `Py_3_14`) available as cfgs.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
