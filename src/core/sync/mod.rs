//! One primitive per file over words in shared memory; each opens with its state table.
