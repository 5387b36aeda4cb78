//! Modules that the standard package has stand-ins for, once somebody has imported them (`rsmp._deferred`).

use pyo3::intern;
use pyo3::prelude::*;

/// The module `name`, if it has been imported.
pub(crate) fn imported<'py>(py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
    if !modules.contains(name)? {
        return Ok(None);
    }
    // A stand-in, perhaps.
    let found = py.import("rsmp._deferred")?.call_method1("executed", (name,))?;
    Ok((!found.is_none()).then_some(found))
}
