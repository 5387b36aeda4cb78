//! What the fuzzers run, one function of bytes each. `tests/core/corpus.rs` runs them over the kept corpora.

pub mod frames;
pub mod requests;
pub mod scalars;
pub mod tokens;

/// A target: its name, which is that of its corpus too, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

pub const ALL: &[Target] =
    &[("frames", frames::run), ("scalars", scalars::run), ("tokens", tokens::run), ("requests", requests::run)];

/// Takes choices off the front of the bytes.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    /// The next byte; 0 when there is none left.
    pub(crate) fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }
}
