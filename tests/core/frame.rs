//! The wire format: against what the standard library writes, against every way the bytes can be cut, against garbage.
//!
//! # Safety
//! Looks at bytes that the reader says it has filled.
#![allow(unsafe_code, clippy::unwrap_used)]

use core::mem::MaybeUninit;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use proptest::prelude::*;
use rsmp_core::Deadline;
use rsmp_core::error::Kind;
use rsmp_core::frame::scalar::{self, Scalar};
use rsmp_core::frame::stream::{self, Next, Part, Patience, Source};
use rsmp_core::frame::{self, HEADROOM, Header, LONGEST, Outgoing, Prefix, plain};
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::socket::{self, Transport};

/// What `struct.pack` of the standard library gives.
fn naive_header(length: u64) -> Vec<u8> {
    if length > 0x7fff_ffff {
        [&(-1_i32).to_be_bytes()[..], &length.to_be_bytes()].concat()
    } else {
        (length as i32).to_be_bytes().to_vec()
    }
}

fn naive_frame(message: &[u8]) -> Vec<u8> {
    [naive_header(message.len() as u64), message.to_vec()].concat()
}

/// What a reader makes of bytes that come in the given pieces.
#[derive(Debug, PartialEq)]
enum Read1 {
    Length(u64),
    Missing,
    Bad,
}

fn feed(prefix: &mut Prefix, mut bytes: &[u8]) -> (Read1, usize) {
    let mut used = 0;
    loop {
        match prefix.length() {
            Ok(Some(length)) => return (Read1::Length(length), used),
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Corrupt(_)));
                return (Read1::Bad, used);
            }
            Ok(None) => {}
        }
        let space = prefix.space();
        assert!(!space.is_empty(), "an unfinished prefix has space");
        let count = space.len().min(bytes.len());
        if count == 0 {
            return (Read1::Missing, used);
        }
        space[..count].copy_from_slice(&bytes[..count]);
        prefix.advance(count);
        bytes = &bytes[count..];
        used += count;
    }
}

proptest! {
    #[test]
    fn headers_are_the_standard_ones(length in prop_oneof![0..=0x1_0000_0000_u64, 0..=LONGEST]) {
        let expected = naive_header(length);
        prop_assert_eq!(Header::new(length as usize).as_bytes().to_vec(), expected.clone());
        let mut prefix = Prefix::default();
        prop_assert_eq!(feed(&mut prefix, &expected), (Read1::Length(length), expected.len()));
    }

    #[test]
    fn a_prefix_may_come_byte_by_byte(length in 0..=LONGEST, cut in 0..12_usize) {
        let bytes = naive_header(length);
        let cut = cut.min(bytes.len() - 1);
        let mut prefix = Prefix::default();
        let mut found = Read1::Missing;
        for byte in &bytes[..cut] {
            found = feed(&mut prefix, &[*byte]).0;
        }
        prop_assert_eq!(found, Read1::Missing);
        prop_assert_eq!(prefix.is_empty(), cut == 0);
        prop_assert_eq!(feed(&mut prefix, &bytes[cut..]).0, Read1::Length(length));
    }

    /// Fuzzing: any bytes at all are a length, a request for more, or an error; never a panic, never read beyond.
    #[test]
    fn garbage_is_an_error_or_a_length(bytes in prop::collection::vec(prop_oneof![Just(0xff_u8), Just(0), any::<u8>()], 0..16)) {
        let mut prefix = Prefix::default();
        let (found, used) = feed(&mut prefix, &bytes);
        let short = bytes.get(..4).map(|four| i32::from_be_bytes(four.try_into().unwrap()));
        let long = bytes.get(4..12).map(|eight| u64::from_be_bytes(eight.try_into().unwrap()));
        let expected = match (short, long) {
            (Some(short @ 0..), _) => (Read1::Length(u64::from(short.unsigned_abs())), 4),
            (Some(-1), Some(long)) if long > LONGEST => (Read1::Bad, 12),
            (Some(-1), Some(long)) => (Read1::Length(long), 12),
            (Some(..-1), _) => (Read1::Bad, 4),
            _ => (Read1::Missing, bytes.len()),
        };
        prop_assert_eq!((found, used), expected);
    }

    #[test]
    fn memory_follows_what_came(length in 0..=LONGEST, received in 0..=LONGEST) {
        let (length, received) = (length as usize, received as usize);
        let room = frame::room(length, received);
        prop_assert!(room <= length);
        prop_assert!(room <= (64 << 20).max(2 * received));
        prop_assert!(room == length || room > received, "there is always room for more");
    }

    #[test]
    fn outgoing_gives_every_byte_once(parts in prop::array::uniform3(prop::collection::vec(any::<u8>(), 0..20)), steps in prop::collection::vec(1..9_usize, 0..80)) {
        let [a, b, c] = &parts;
        let expected = naive_frame(&parts.concat());
        let mut message = Outgoing::of_parts([a, b, c]);
        let mut written = Vec::new();
        let mut steps = steps.into_iter();
        while !message.is_complete() {
            let (slices, count) = message.remaining();
            let rest: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            prop_assert!(slices[..count].iter().all(|slice| !slice.is_empty()));
            let step = steps.next().unwrap_or(64).min(rest.len());
            written.extend_from_slice(&rest[..step]);
            message.advance(step);
        }
        prop_assert_eq!(written, expected);
    }

    #[test]
    fn sealing_puts_the_header_before_the_message(message in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(&message);
        prop_assert_eq!(frame::seal(&mut buffer), &naive_frame(&message)[..]);
    }

    /// Messages of any sizes, written by the standard library in any pieces, over a pipe and over sockets.
    #[test]
    fn messages_arrive_however_they_are_cut(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
        pieces in prop::collection::vec(1..40_usize, 1..20),
        sockets in any::<bool>(),
    ) {
        let (reader, writer) = ends(sockets);
        let bytes: Vec<u8> = messages.iter().flat_map(|message| naive_frame(message)).collect();
        let sender = thread::spawn(move || {
            let mut writer = std::fs::File::from(writer);
            let mut rest = &bytes[..];
            for piece in pieces.iter().cycle() {
                let (now, later) = rest.split_at((*piece).min(rest.len()));
                writer.write_all(now).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
        });
        let transport = Transport::default();
        for message in &messages {
            prop_assert_eq!(&receive(&reader, &transport).unwrap(), message);
        }
        prop_assert_eq!(receive(&reader, &transport).unwrap_err().kind().clone(), Kind::EndOfStream);
        sender.join().unwrap();
    }
}

fn ends(sockets: bool) -> (OwnedFd, OwnedFd) {
    if sockets { socket::pair() } else { socket::pipe() }.unwrap()
}

/// Receives one message (8 MiB of it at most), the longer ones in two steps.
fn receive(fd: &OwnedFd, transport: &Transport) -> rsmp_core::Result<Vec<u8>> {
    let spin = Spin::default();
    let mut source = Source { fd: fd.as_fd(), transport, spin: &spin, patience: Patience::Endless, has_spun: false };
    let (mut space, mut prefix, mut filled) = ([MaybeUninit::uninit(); 100], Prefix::default(), 0);
    let next = loop {
        if let Some(next) = source.next(&mut prefix, &mut space, &mut filled, Deadline::NEVER)? {
            break next;
        }
    };
    let mut body = match next {
        Next::Whole(length) => return Ok(values(&space[..length])),
        Next::Length(length) => vec![MaybeUninit::uninit(); (length as usize).min(8 << 20)],
    };
    source.fill(Part::First, &mut body, &mut 0, Deadline::NEVER)?.unwrap();
    Ok(values(&body))
}

fn values(bytes: &[MaybeUninit<u8>]) -> Vec<u8> {
    // SAFETY: `Source` says that it has filled them.
    bytes.iter().map(|byte| unsafe { byte.assume_init() }).collect()
}

proptest! {
    /// serde-pickle is another reader and writer of the format.
    #[test]
    fn scalars_are_pickles(int in any::<i64>(), shift in 0..64_u32, float in any::<f64>(), text in ".{0,300}", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        use serde_pickle::Value;
        let pairs = [
            (Scalar::None, Value::None),
            (Scalar::Bool(int > 0), Value::Bool(int > 0)),
            (Scalar::Int(int >> shift), Value::I64(int >> shift)),
            (Scalar::Float(float), Value::F64(float)),
            (Scalar::Str(&text), Value::String(text.clone())),
            (Scalar::Bytes(&bytes), Value::Bytes(bytes.clone())),
        ];
        for (scalar, value) in pairs {
            let mut pickle = Vec::new();
            prop_assert!(scalar::write(scalar, 4, &mut pickle));
            prop_assert_eq!(scalar::read(&pickle), Some(scalar));
            prop_assert_eq!(&serde_pickle::value_from_slice(&pickle, serde_pickle::DeOptions::default()).unwrap(), &value);
            let other = serde_pickle::value_to_vec(&value, serde_pickle::SerOptions::default()).unwrap();
            prop_assert!(scalar::read(&other).is_none() || scalar::read(&other) == Some(scalar));
            // Every truncation and extension is left to the interpreter.
            for end in 0..pickle.len() {
                prop_assert_eq!(scalar::read(&pickle[..end]), None);
            }
            pickle.push(b'.');
            prop_assert!(scalar::read(&pickle).is_none());
        }
    }

    #[test]
    fn garbage_is_no_scalar_or_one(bytes in prop::collection::vec(any::<u8>(), 0..40), opcode in prop::sample::select(&b"NKMJG\x8a\x8cXCB\x88\x95"[..])) {
        let _ = scalar::read(&bytes);
        let _ = scalar::read(&[&[0x80, 4, opcode], &bytes[..]].concat());
    }
}

/// What a reader says of a stream that ends after `bytes`.
fn ending(bytes: &[u8], sockets: bool) -> rsmp_core::Error {
    let (reader, writer) = ends(sockets);
    std::fs::File::from(writer).write_all(bytes).unwrap();
    receive(&reader, &Transport::default()).unwrap_err()
}

#[test]
fn an_end_between_parts_is_an_end_of_file_and_inside_one_a_broken_message() {
    let long = [&naive_header(1 << 33)[..], b"ab"].concat();
    for sockets in [false, true] {
        for cut in [0, 4, 12] {
            assert_eq!(ending(&long[..cut], sockets).kind(), &Kind::EndOfStream, "{cut}");
        }
        for cut in [1, 3, 5, 11] {
            assert!(matches!(ending(&long[..cut], sockets).kind(), Kind::Corrupt(_)), "{cut}");
        }
        let short = naive_frame(&[7; 200]);
        assert_eq!(ending(&short[..4], sockets).kind(), &Kind::EndOfStream);
        for cut in [5, 100, 203] {
            assert!(matches!(ending(&short[..cut], sockets).kind(), Kind::Corrupt(_)), "{cut}");
        }
    }
}

#[test]
fn a_lying_peer_gets_an_error_and_no_memory() {
    for announced in [1 << 60, u64::MAX, LONGEST + 1] {
        let bytes = [&[0xff; 4][..], &u64::to_be_bytes(announced)].concat();
        assert!(matches!(ending(&bytes, true).kind(), Kind::Corrupt(_)));
    }
    assert!(matches!(ending(&(-2_i32).to_be_bytes(), true).kind(), Kind::Corrupt(_)));
    assert!(frame::room(LONGEST as usize, 0) <= 64 << 20);
}

#[test]
fn nothing_is_read_beyond_a_message() {
    for sockets in [false, true] {
        let (reader, writer) = ends(sockets);
        let mut writer = std::fs::File::from(writer);
        writer.write_all(&naive_frame(b"first")).unwrap();
        writer.write_all(b"what follows").unwrap();
        assert_eq!(receive(&reader, &Transport::default()).unwrap(), b"first");
        let mut rest = [0; 12];
        std::fs::File::from(reader).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"what follows");
    }
}

#[test]
fn a_descriptor_that_does_not_block_is_waited_for_inside_a_message_only() {
    let (reader, writer) = socket::pair().unwrap();
    let nonblocking = |fd: &OwnedFd, on| rustix::io::ioctl_fionbio(fd, on).unwrap();
    nonblocking(&reader, true);
    nonblocking(&writer, true);
    let transport = Transport::default();
    let error = receive(&reader, &transport).unwrap_err();
    assert_eq!(error.kind(), &Kind::Os(rustix::io::Errno::AGAIN));

    // One byte of the header, so that the receiver is inside the message from the start.
    let message = vec![5; 4 << 20];
    let mut outgoing = Outgoing::new(&message);
    socket::write(writer.as_fd(), &transport, &[std::io::IoSlice::new(&naive_header(4 << 20)[..1])]).unwrap();
    outgoing.advance(1);
    let receiver = thread::spawn(move || receive(&reader, &Transport::default()).unwrap());
    while stream::write(writer.as_fd(), &transport, &mut outgoing, Deadline::NEVER).unwrap().is_none() {}
    assert_eq!(receiver.join().unwrap(), message);
}

#[test]
fn a_bounded_source_gives_up_at_its_deadline() {
    let (reader, writer) = socket::pair().unwrap();
    let mut writer = std::fs::File::from(writer);
    let (transport, spin) = (Transport::default(), Spin::default());
    let (fd, patience) = (reader.as_fd(), Patience::Bounded);
    let mut source = Source { fd, transport: &transport, spin: &spin, patience, has_spun: false };
    let soon = || Deadline::after(core::time::Duration::from_millis(20));
    let mut space = [MaybeUninit::uninit(); 100];
    let (mut prefix, mut filled) = (Prefix::default(), 0);
    let mut next = || source.next(&mut prefix, &mut space, &mut filled, soon()).unwrap();
    assert_eq!(next(), None);
    writer.write_all(&[0, 0]).unwrap();
    assert_eq!(next(), None);
    writer.write_all(&[0, 3, 1, 2]).unwrap();
    assert_eq!(next(), None);
    writer.write_all(&[3]).unwrap();
    assert_eq!(next(), Some(Next::Whole(3)));
}

#[test]
fn a_large_bytes_object_is_recognised_by_its_pickle() {
    let length = plain::LEAST + 3;
    let head = plain::head(4, length).unwrap();
    assert_eq!(head, [0x80, 4, b'B', 3, 0, 1, 0]);
    let whole = plain::HEAD + length + plain::TAIL.len();
    assert_eq!(plain::contents(head, whole), Some(length));
    assert_eq!(plain::contents(head, whole + 1), None);
    assert_eq!(plain::contents([0x80, 4, b'X', 3, 0, 1, 0], whole), None);
    assert_eq!(plain::contents([0x80, 3, b'B', 3, 0, 1, 0], whole), None);
    assert_eq!(plain::head(4, plain::LEAST - 1), None);
    assert_eq!(plain::head(3, length), None);
    assert_eq!(plain::head(5, (1 << 32) + 1), None);
}

#[test]
fn descriptors_go_over_a_socket_closed_on_exec() {
    let (one, other) = socket::pair().unwrap();
    let (reader, writer) = socket::pipe().unwrap();
    socket::send_descriptors(one.as_fd(), &[reader.as_fd(), writer.as_fd()], 2, Deadline::NEVER).unwrap().unwrap();
    let received = socket::receive_descriptors(other.as_fd(), 4, Deadline::NEVER).unwrap().unwrap();
    assert_eq!((received.groups, received.note, received.descriptors.len()), (1, Some(2), 2));
    for descriptor in &received.descriptors {
        assert!(rustix::io::fcntl_getfd(descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
    drop(one);
    let error = socket::receive_descriptors(other.as_fd(), 1, Deadline::NEVER).unwrap_err();
    assert_eq!(error.kind(), &Kind::EndOfStream);
}
