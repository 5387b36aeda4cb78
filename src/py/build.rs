//! Makes the interpreter's properties (`Py_GIL_DISABLED`, `Py_3_14`) available as cfgs, and orders the functions.

use std::env;

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    order_functions();
}

/// Has the linker put the functions that programs use beside each other: `layout.ld`.
///
/// GNU ld and lld, of which rustc uses one by default, read such a script. Another linker may not, and the engine is the
/// same without it.
fn order_functions() {
    println!("cargo::rerun-if-changed=layout.ld");
    let chosen = |name| env::var(name).unwrap_or_default();
    let another = env::var_os("RUSTC_LINKER").is_some() || chosen("CARGO_ENCODED_RUSTFLAGS").contains("-fuse-ld=");
    if chosen("CARGO_CFG_TARGET_OS") == "linux" && !another {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-T,{}/layout.ld", chosen("CARGO_MANIFEST_DIR"));
    }
}
