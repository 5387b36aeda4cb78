//! Whether a class has changed since it was last looked at.
//!
//! # Safety
//! Reads a word of a type object that a reference keeps alive.
#![allow(unsafe_code)]

use core::num::NonZero;

use pyo3::prelude::*;
use pyo3::types::PyType;
use rsmp_core::atomic::{AtomicU32, Ordering};

/// Remembers one version of one class.
///
/// The interpreter gives a class a version when an attribute is first looked up, takes it away when the class or one it
/// inherits from changes, and gives no version twice.
pub(crate) struct Known(AtomicU32);

impl Known {
    pub(crate) const fn nothing() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Whether `class` is the remembered one, unchanged.
    pub(crate) fn is(&self, class: &Bound<'_, PyType>) -> bool {
        version(class).is_some_and(|version| version.get() == self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn remember(&self, class: &Bound<'_, PyType>) {
        self.0.store(version(class).map_or(0, NonZero::get), Ordering::Relaxed);
    }
}

fn version(class: &Bound<'_, PyType>) -> Option<NonZero<u32>> {
    // SAFETY: the reference keeps the type object alive; the word is read while attached.
    NonZero::new(unsafe { (*class.as_type_ptr()).tp_version_tag })
}
