//! The connection's wire format: whatever comes in, in whatever pieces, is read as a reader of twenty lines reads it, and
//! what goes out, however little is written at a time, is what that reader expects.

use core::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rsmp_core::Deadline;
use rsmp_core::error::Kind;
use rsmp_core::frame::stream::{Next, Part, Patience, Source};
use rsmp_core::frame::{LONGEST, Outgoing, Prefix, room};
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::socket::{self, Transport};

use super::Choices;

/// How the bytes end for a reader.
#[derive(Debug, PartialEq)]
enum End {
    OfStream,
    Corrupt,
}

/// What `data` says, read the simple way: messages, and how they end.
fn expected(mut data: &[u8]) -> (Vec<&[u8]>, End) {
    let mut messages = Vec::new();
    loop {
        let Some((short, rest)) = data.split_first_chunk::<4>() else {
            return (messages, if data.is_empty() { End::OfStream } else { End::Corrupt });
        };
        let (length, rest) = match i32::from_be_bytes(*short) {
            -1 => match rest.split_first_chunk::<8>() {
                Some((long, rest)) if u64::from_be_bytes(*long) <= LONGEST => (u64::from_be_bytes(*long), rest),
                Some(_) => return (messages, End::Corrupt),
                None => return (messages, if rest.is_empty() { End::OfStream } else { End::Corrupt }),
            },
            length @ 0.. => (u64::from(length.unsigned_abs()), rest),
            _ => return (messages, End::Corrupt),
        };
        match usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) {
            Some((message, rest)) => {
                messages.push(message);
                data = rest;
            }
            None => return (messages, if rest.is_empty() { End::OfStream } else { End::Corrupt }),
        }
    }
}

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    match choices.next() % 4 {
        0 => pieces(choices),
        1 => outgoing(choices),
        kind => stream(choices, kind == 2),
    }
}

/// The length comes in pieces of any size.
fn pieces(mut choices: Choices<'_>) {
    let piece = 1 + choices.next() % 12;
    let mut rest = choices.0;
    let mut prefix = Prefix::default();
    while let Ok(None) = prefix.length() {
        let space = prefix.space();
        assert!(!space.is_empty(), "an unfinished prefix has no space");
        let count = space.len().min(piece).min(rest.len());
        if count == 0 {
            break;
        }
        space[..count].copy_from_slice(&rest[..count]);
        prefix.advance(count);
        rest = &rest[count..];
    }
    if let Ok(Some(length)) = prefix.length() {
        assert!(length <= LONGEST && prefix.space().is_empty());
        let length = length as usize;
        assert!(room(length, 0) <= 64 << 20, "memory for an announcement alone");
        assert!(room(length, 1 << 30) <= 2 << 30);
    }
}

/// Three parts, written a few bytes at a time.
fn outgoing(mut choices: Choices<'_>) {
    let (first, second, step) = (choices.next(), choices.next(), 1 + choices.next());
    let message = choices.0;
    let (one, rest) = message.split_at(first.min(message.len()));
    let (two, three) = rest.split_at(second.min(rest.len()));
    let mut outgoing = Outgoing::of_parts([one, two, three]);
    let mut written = Vec::new();
    while !outgoing.is_complete() {
        let (slices, count) = outgoing.remaining();
        let before = written.len();
        for slice in &slices[..count] {
            let space = step - (written.len() - before);
            written.extend_from_slice(&slice[..slice.len().min(space)]);
        }
        let count = written.len() - before;
        assert!(count > 0, "nothing to write, and not complete");
        outgoing.advance(count);
    }
    assert_eq!(expected(&written), (vec![message], End::OfStream));
}

/// All the bytes, through a socket or a pipe.
fn stream(mut choices: Choices<'_>, socket: bool) {
    let space = choices.next();
    let patience = if choices.next().is_multiple_of(2) { Patience::Endless } else { Patience::Bounded };
    let data = &choices.0[..choices.0.len().min(32 << 10)];
    let (reader, writer) = if socket { socket::pair() } else { socket::pipe() }.expect("descriptors");
    let mut sent = 0;
    while sent < data.len() {
        sent += rustix::io::write(&writer, &data[sent..]).expect("room in the buffer");
    }
    drop(writer);
    let (messages, end) = expected(data);
    for message in messages {
        assert_eq!(read(&reader, space, patience).expect("a message"), message);
    }
    assert_eq!(read(&reader, space, patience).expect_err("no message"), end);
}

fn read(reader: &OwnedFd, space: usize, patience: Patience) -> Result<Vec<u8>, End> {
    let (transport, spin) = (Transport::default(), Spin::new());
    let mut source = Source { fd: reader.as_fd(), transport: &transport, spin: &spin, patience, has_spun: false };
    let mut buffer = vec![MaybeUninit::new(0xee_u8); space];
    let (mut prefix, mut filled) = (Prefix::default(), 0);
    let next = loop {
        if let Some(next) = source.next(&mut prefix, &mut buffer, &mut filled, Deadline::NEVER).map_err(end)? {
            break next;
        }
    };
    match next {
        Next::Whole(length) => {
            assert!(length <= space && filled == length);
            Ok(initialised(&buffer[..length]))
        }
        Next::Length(length) => {
            assert!(length > space as u64, "it would have fit");
            let mut message = Vec::new();
            let mut left = length;
            while left > 0 {
                // As much as came so far and no more: what is announced costs nothing.
                let count = left.min(4096) as usize;
                let mut piece = vec![MaybeUninit::new(0xee_u8); count];
                let part = if message.is_empty() { Part::First } else { Part::Later };
                let mut filled = 0;
                source.fill(part, &mut piece, &mut filled, Deadline::NEVER).map_err(|error| {
                    let end = end(error);
                    assert!(end == End::Corrupt || (message.is_empty() && filled == 0), "an end inside a message");
                    end
                })?;
                message.extend(initialised(&piece));
                left -= count as u64;
            }
            Ok(message)
        }
    }
}

fn end(error: rsmp_core::Error) -> End {
    match error.kind() {
        Kind::EndOfStream => End::OfStream,
        Kind::Corrupt(_) => End::Corrupt,
        _ => panic!("{error}"),
    }
}

fn initialised(space: &[MaybeUninit<u8>]) -> Vec<u8> {
    // SAFETY: the buffers above are made of initialised bytes.
    space.iter().map(|byte| unsafe { byte.assume_init() }).collect()
}
