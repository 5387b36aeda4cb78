//! The fork server's requests: garbage with any number of descriptors is refused, leaves no descriptor open, and the
//! next client is served.

use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rsmp_core::Deadline;
use rsmp_core::spawn::protocol::{FIXED_DESCRIPTORS, Header, LONGEST_MESSAGE};
use rsmp_core::spawn::request::Payload;
use rsmp_core::spawn::server::{Event, Server};
use rsmp_core::sys::seqpacket;

use super::Choices;

pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let count = choices.next() % 12;
    let message = &choices.0[..choices.0.len().min(LONGEST_MESSAGE)];
    let decoded = Header::decode(message, count);
    if let Ok((header, start)) = &decoded {
        assert!(header.descriptors() == count && *start <= message.len());
        let again = header.encode().expect("a header");
        assert_eq!(Header::decode(&again, count).expect("what was written is read"), (*header, again.len()));
    }
    let (control, client) = seqpacket::pair().expect("descriptors");
    let mut server = Server::new(control).expect("a server");
    let before = open();
    let (reader, writer) = rustix::pipe::pipe().expect("descriptors");
    send(&client, &[message], &vec![writer.as_fd(); count]);
    // An empty message without descriptors looks like the end of the stream; no client sends one.
    if !message.is_empty() || count > 0 {
        let event = server.next(Deadline::PASSED).expect("the server goes on");
        match (event, decoded) {
            (Some(Event::Asked(request)), Ok((header, start))) => {
                assert_eq!(request.lifeline.is_some(), header.lifeline);
                assert_eq!(request.inherited.len(), header.inherited as usize);
                match request.payload {
                    Payload::Inline(bytes) => assert!(!header.file && bytes == message[start..]),
                    Payload::File(_) => assert!(header.file),
                }
            }
            (None, Err(_)) => {}
            (event, decoded) => panic!("{event:?} for {decoded:?}"),
        }
        drop(writer);
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0), "a descriptor of the request stays open");
        drop(reader);
        assert_eq!(open(), before, "descriptors are left");
        next_client(&mut server, &client);
    }
}

fn next_client(server: &mut Server, client: &OwnedFd) {
    let header = Header { lifeline: false, file: false, inherited: 1 }.encode().expect("a header");
    send(client, &[&header, b"payload"], &[client.as_fd(); FIXED_DESCRIPTORS + 1]);
    // It may want to fork its standby first, which is done without here.
    for _ in 0..3 {
        match server.next(Deadline::PASSED).expect("the server goes on") {
            Some(Event::Asked(request)) => {
                assert!(matches!(request.payload, Payload::Inline(bytes) if bytes == b"payload"));
                return;
            }
            Some(Event::StandBy) => server.no_standby(),
            other => panic!("{other:?}"),
        }
    }
    panic!("the next client is not heard");
}

fn send(client: &OwnedFd, parts: &[&[u8]], descriptors: &[BorrowedFd<'_>]) {
    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    seqpacket::send(client, &parts, descriptors).expect("sent").expect("room");
}

fn open() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
