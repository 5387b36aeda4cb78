//! The arena's cells and the table of those who map it.

use rsmp_core::atomic::{AtomicU64, Ordering};
use rsmp_core::shm::arena::{self, Cell};
use rsmp_core::shm::participants::{self, Participants};
use rsmp_core::sys::process::Identity;

use super::survivor::{cell, know_myself};
use super::{Maker, Scenario};

pub(crate) const ALL: &[Maker] = &[
    ("arena: allocate and drop", arena_cells),
    ("participants: expect and cancel", participants_expect),
    ("participants: arrive", participants_arrive),
    ("participants: look who lives", participants_look),
];

/// A process makes an arena of its own and uses cells again; ours does not mind.
fn arena_cells(run: &mut dyn FnMut(Scenario<'_>)) {
    let kept = cell();
    kept.word64(0).store(7, Ordering::Relaxed);
    run(Scenario {
        name: "allocate and drop",
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            let first = arena::allocate(arena::LINE).unwrap();
            drop(arena::allocate(3 * arena::LINE).unwrap());
            drop(first);
        }),
        look: None,
        check: Box::new(|pid, _| {
            arena::forked(pid);
            let cells: Vec<Cell> = (0..50).map(|_| cell()).collect();
            assert!(
                cells.iter().all(|cell| cell.offset() != kept.offset() && cell.word64(0).load(Ordering::Relaxed) == 0)
            );
            assert_eq!(kept.word64(0).load(Ordering::Relaxed), 7);
        }),
    });
}

const TABLE: usize = participants::CAPACITY * participants::WORDS;

/// A table of participants in a cell, one word of which says that it is full.
fn with_table(then: impl FnOnce(Participants<'_>)) {
    let cell = arena::allocate(TABLE * 8 + arena::LINE).unwrap();
    let words: Vec<&AtomicU64> = (0..TABLE).map(|word| cell.word64(word * 8)).collect();
    // SAFETY: the words lie one behind the other in the cell, which outlives the table.
    let words = unsafe { core::slice::from_raw_parts(core::ptr::from_ref(words[0]), TABLE) };
    then(Participants::new(words, cell.word64(TABLE * 8)));
}

/// As many more as the table has room for; those of processes that live count, and so does what the dead expected.
fn check_room(table: Participants<'_>, taken: usize) {
    let me = Identity::current();
    let tickets: Vec<_> = (0..participants::CAPACITY - taken).map(|_| table.expect(me, 3).expect("room")).collect();
    assert_eq!(table.events().map(|events| events.len()), Some(participants::CAPACITY));
    for ticket in tickets {
        table.cancel(ticket, me);
    }
    assert_eq!(table.events().map(|events| events.len()), Some(taken));
}

fn participants_expect(run: &mut dyn FnMut(Scenario<'_>)) {
    with_table(|table| {
        run(Scenario {
            name: "expect and cancel",
            prepare: Box::new(know_myself),
            operation: Box::new(|| {
                let me = Identity::current();
                let ticket = table.expect(me, 7).expect("room");
                table.cancel(ticket, me);
            }),
            look: None,
            check: Box::new(|_, done| {
                let events = table.events().expect("it is not full");
                assert!(events.is_empty() || (!done && events == [7]), "{events:?}");
                check_room(table, events.len());
            }),
        });
    });
}

fn participants_arrive(run: &mut dyn FnMut(Scenario<'_>)) {
    with_table(|table| {
        let me = Identity::current();
        let ticket = table.expect(me, 7).expect("room");
        run(Scenario {
            name: "arrive",
            prepare: Box::new(know_myself),
            operation: Box::new(|| assert_eq!(table.arrive(ticket, Identity::current()), Some(7))),
            look: None,
            check: Box::new(|_, done| {
                let events = table.events().expect("it is not full");
                assert!(events.is_empty() || (!done && events == [7]), "{events:?}");
                // Whoever expected it sees it end.
                table.cancel(ticket, me);
                check_room(table, 0);
            }),
        });
    });
}

/// Looking frees what the dead have left, and is killed doing it.
fn participants_look(run: &mut dyn FnMut(Scenario<'_>)) {
    with_table(|table| {
        let me = Identity::current();
        // Of this process's id, and begun at another time.
        let dead = Identity::from_word(me.to_word() ^ (1 << 22)).unwrap();
        for event in 0..3 {
            let ticket = table.expect(me, event).expect("room");
            assert_eq!(table.arrive(ticket, dead), Some(event));
        }
        let living = table.expect(me, 9).expect("room");
        assert_eq!(table.arrive(living, me), Some(9));
        run(Scenario {
            name: "look who lives",
            prepare: Box::new(know_myself),
            operation: Box::new(|| assert_eq!(table.events(), Some(vec![9]))),
            look: None,
            check: Box::new(|_, _| {
                assert_eq!(table.events(), Some(vec![9]));
                check_room(table, 1);
            }),
        });
    });
}
