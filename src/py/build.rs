//! Makes the interpreter's properties (`Py_GIL_DISABLED`, `Py_3_14`) available as cfgs, and orders the functions.

use std::env;

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    order_functions();
}

/// Has the linker put the functions that programs use beside each other: `layout.ld`.
///
/// GNU ld and lld, of which rustc uses one by default, read such a script; gold and mold do not, and the engine is the
/// same without it. So whoever chooses a linker gets its own order, and so does a build with `RSMP_ANY_LINKER=1`.
fn order_functions() {
    println!("cargo::rerun-if-changed=layout.ld");
    println!("cargo::rerun-if-env-changed=RSMP_ANY_LINKER");
    let chosen = |name| env::var(name).unwrap_or_default();
    let flags = chosen("CARGO_ENCODED_RUSTFLAGS");
    let another = ["RUSTC_LINKER", "RSMP_ANY_LINKER"].iter().any(|name| env::var_os(name).is_some())
        || ["-fuse-ld=", "--ld-path=", "linker="].iter().any(|flag| flags.contains(flag));
    if chosen("CARGO_CFG_TARGET_OS") == "linux" && !another {
        println!("cargo::rustc-cdylib-link-arg=-T{}/layout.ld", chosen("CARGO_MANIFEST_DIR"));
    }
}
