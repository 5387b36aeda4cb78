//! A `ShareableList`'s layout in a real segment, and what becomes of it when the bytes make no sense.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rsmp_core::error::Kind;
use rsmp_core::shm::list::{Item, List};
use rsmp_core::sys::segment::{MODE, Segment};

/// A segment whose name goes with the test.
struct Named(String);

impl Named {
    fn new(label: &str) -> Self {
        Self(format!("/rsmp-test-{label}-{}", std::process::id()))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Segment::unlink(&self.0);
    }
}

fn text(text: &str) -> Item<'static> {
    Item::Text(text.as_bytes().to_vec().into())
}

#[test]
fn a_segment_lives_until_it_is_unlinked() {
    let name = Named::new("segment");
    let made = Segment::create(&name.0, 100, MODE).unwrap();
    assert_eq!(made.len(), 100);
    assert!(made.copy_in(90, b"0123456789"));
    assert!(!made.copy_in(91, b"0123456789"), "beyond the end");
    drop(made);
    assert!(matches!(Segment::create(&name.0, 100, MODE).err().unwrap().kind(), Kind::Os(_)));
    let opened = Segment::open(&name.0).unwrap();
    let mut bytes = [0; 10];
    assert!(opened.copy_out(90, &mut bytes));
    assert_eq!(&bytes, b"0123456789");
    assert!(!opened.copy_out(usize::MAX, &mut bytes));
    Segment::unlink(&name.0).unwrap();
    assert!(Segment::open(&name.0).is_err());
    let empty = Segment::open_or_create(&name.0, MODE).err().unwrap();
    assert_eq!(*empty.kind(), Kind::Invalid("cannot mmap an empty file".into()));
}

#[test]
fn another_mode() {
    let name = Named::new("mode");
    assert_eq!(Segment::create(&name.0, 100, 0o640).unwrap().len(), 100);
    assert!(Segment::create(&name.0, 100, 0o640).is_err());
}

#[test]
fn the_bytes_are_those_of_the_standard_library() {
    let items = [text("howdy"), Item::Bytes(b"HoWdY".as_slice().into()), Item::Float(-273.154), Item::None];
    let list = List::plan(&items).unwrap();
    assert_eq!(list.offsets(), [0, 8, 16, 24, 32]);
    let name = Named::new("layout");
    let segment = Segment::create(&name.0, list.size(), MODE).unwrap();
    list.store(&segment, &items).unwrap();
    let mut formats = [0; 32];
    assert!(segment.copy_out(8 * 6 + 32, &mut formats));
    assert_eq!(&formats, b"8s\0\0\0\0\0\08s\0\0\0\0\0\0d\0\0\0\0\0\0\0xxxxxx?x");
    let mut codes = [9; 4];
    assert!(segment.copy_out(8 * 6 + 64, &mut codes));
    assert_eq!(codes, [1, 2, 0, 3]);
}

fn items() -> impl Strategy<Value = Vec<Item<'static>>> {
    let item = prop_oneof![
        any::<i64>().prop_map(Item::Int),
        any::<f64>().prop_filter("NaN differs from itself", |value| !value.is_nan()).prop_map(Item::Float),
        any::<bool>().prop_map(Item::Bool),
        Just(Item::None),
        "[^\0]{0,20}".prop_map(|value| text(&value)),
        proptest::collection::vec(1..=255_u8, 0..40).prop_map(|value| Item::Bytes(value.into())),
    ];
    proptest::collection::vec(item, 0..12)
}

proptest! {
    #[test]
    fn what_is_stored_comes_back(items in items()) {
        let list = List::plan(&items).unwrap();
        let name = Named::new("proptest");
        let segment = Segment::create(&name.0, list.size(), MODE).unwrap();
        list.store(&segment, &items).unwrap();
        let attached = List::attach(&segment).unwrap();
        prop_assert_eq!(attached.offsets(), list.offsets());
        for (position, item) in items.iter().enumerate() {
            prop_assert_eq!(attached.get(&segment, position), Some(item.clone()));
            attached.set(&segment, position, &Item::Int(7)).unwrap();
            attached.set(&segment, position, item).unwrap();
        }
        for (position, item) in items.iter().enumerate() {
            prop_assert_eq!(attached.get(&segment, position), Some(item.clone()));
        }
    }

    #[test]
    fn garbage_is_refused_or_read_as_something(bytes in proptest::collection::vec(any::<u8>(), 1..400), small in 0..9_u64) {
        let name = Named::new("garbage");
        let segment = Segment::create(&name.0, bytes.len(), MODE).unwrap();
        prop_assert!(segment.copy_in(0, &bytes));
        let _ = segment.copy_in(0, &small.to_ne_bytes());
        if let Ok(list) = List::attach(&segment) {
            for position in 0..list.len() {
                let _ = list.get(&segment, position);
                let _ = list.set(&segment, position, &Item::Bool(true));
            }
        }
    }
}
