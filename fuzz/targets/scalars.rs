//! Pickles of one scalar: what is recognised is what serde-pickle, an independent reader, makes of it, and what is
//! written comes back through both.

use rsmp_core::frame::plain;
use rsmp_core::frame::scalar::{self, Scalar};
use serde_pickle::{DeOptions, Value};

use super::Choices;

pub fn run(data: &[u8]) {
    if let Some(found) = scalar::read(data) {
        if let Ok(value) = serde_pickle::value_from_slice(data, DeOptions::new()) {
            assert!(agree(found, &value), "{found:?} is read, it is {value:?}");
        }
        round_trip(found);
    }
    let mut choices = Choices(data);
    let kind = choices.next() % 8;
    let mut word = [0; 8];
    let len = choices.0.len().min(8);
    word[..len].copy_from_slice(&choices.0[..len]);
    round_trip(match kind {
        0 => Scalar::None,
        1 => Scalar::Bool(len > 0),
        2 => Scalar::Float(f64::from_le_bytes(word)),
        3 => core::str::from_utf8(choices.0).map_or(Scalar::None, Scalar::Str),
        4 => Scalar::Bytes(choices.0),
        // Numbers of few bytes are the interesting ones.
        shift => Scalar::Int(i64::from_le_bytes(word) >> (8 * (shift - 5))),
    });
    large(u64::from_le_bytes(word), choices.0);
}

fn round_trip(scalar: Scalar<'_>) {
    for protocol in 0..8 {
        let mut out = b"before".to_vec();
        if !scalar::write(scalar, protocol, &mut out) {
            assert_eq!(out, b"before", "something is left of what was not written");
            continue;
        }
        let pickle = &out[6..];
        let back = scalar::read(pickle).expect("what was written is read");
        assert!(same(back, scalar), "{scalar:?} came back as {back:?}");
        let value = serde_pickle::value_from_slice(pickle, DeOptions::new()).expect("a pickle to anybody else");
        assert!(agree(scalar, &value), "{scalar:?} was written, it is {value:?}");
    }
}

/// A message that may be one large `bytes` object.
fn large(length: u64, data: &[u8]) {
    let Some((head, _)) = data.split_first_chunk::<{ plain::HEAD }>() else { return };
    let length = length as usize;
    if let Some(contents) = plain::contents(*head, length) {
        assert_eq!(contents + plain::HEAD + plain::TAIL.len(), length);
        assert_eq!(plain::head(head[1], contents), Some(*head));
    }
}

fn same(one: Scalar<'_>, other: Scalar<'_>) -> bool {
    match (one, other) {
        (Scalar::Float(one), Scalar::Float(other)) => one.to_bits() == other.to_bits(),
        _ => one == other,
    }
}

fn agree(found: Scalar<'_>, value: &Value) -> bool {
    match (found, value) {
        (Scalar::None, Value::None) => true,
        (Scalar::Bool(one), Value::Bool(other)) => one == *other,
        (Scalar::Int(one), Value::I64(other)) => one == *other,
        (Scalar::Int(one), Value::Int(other)) => other.to_string() == one.to_string(),
        (Scalar::Float(one), Value::F64(other)) => one.to_bits() == other.to_bits(),
        (Scalar::Str(one), Value::String(other)) => one == other,
        (Scalar::Bytes(one), Value::Bytes(other)) => one == other,
        _ => false,
    }
}
