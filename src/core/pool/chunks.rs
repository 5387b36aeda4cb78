//! How a map is cut into chunks.

/// The standard library's default: four chunks for each worker, rounded up.
///
/// `workers` may be zero while all of them are being replaced; it counts as one.
#[must_use]
pub fn default_size(items: usize, workers: usize) -> usize {
    items.div_ceil(workers.max(1).saturating_mul(4))
}

/// Number of chunks of `size` items; none for a size of zero.
#[must_use]
pub fn count(items: usize, size: usize) -> usize {
    if size == 0 { 0 } else { items.div_ceil(size) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_the_standard_library() {
        assert_eq!(default_size(0, 2), 0);
        assert_eq!(default_size(1, 2), 1);
        assert_eq!(default_size(8, 2), 1);
        assert_eq!(default_size(9, 2), 2);
        assert_eq!(default_size(100, 0), 25);
    }

    proptest! {
        #[test]
        fn every_item_is_in_one_chunk(items in 0_usize..100_000, workers in 1_usize..200) {
            let size = default_size(items, workers);
            let count = count(items, size);
            prop_assert!(count <= workers * 4);
            prop_assert!(count * size >= items);
            prop_assert!(count == 0 || (count - 1) * size < items);
        }
    }
}
