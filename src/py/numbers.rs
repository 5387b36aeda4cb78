//! Which objects of a message have a number, by their addresses: most messages have a few, looked through one by one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use smallvec::SmallVec;

/// So many are kept without allocating.
pub(crate) const FEW: usize = 8;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub(crate) number: usize,
    /// A tuple whose items are still being written cannot be referred to: it does not exist yet for the reader.
    pub(crate) open: bool,
}

struct Numbered {
    address: usize,
    /// Where in the message its token is.
    position: usize,
    open: bool,
}

#[derive(Default)]
pub(crate) struct Numbers {
    objects: SmallVec<[Numbered; FEW]>,
    /// Where each is, once there are more than a few.
    places: HashMap<usize, usize, BuildHasherDefault<AddressHasher>>,
}

impl Numbers {
    /// The number of the object at `address`; `None` if it had none and has got the next one, for its token at `position`.
    #[inline]
    pub(crate) fn of(&mut self, address: usize, position: usize) -> Option<Number> {
        if let Some(number) = self.find(address) {
            return Some(Number { number, open: self.objects[number].open });
        }
        self.objects.push(Numbered { address, position, open: false });
        if self.objects.len() > FEW {
            let unplaced = self.places.len()..self.objects.len();
            self.places.extend(unplaced.map(|number| (self.objects[number].address, number)));
        }
        None
    }

    /// Says whether the items of a tuple that has a number are still being written.
    #[inline]
    pub(crate) fn set_open(&mut self, address: usize, open: bool) {
        if let Some(number) = self.find(address) {
            self.objects[number].open = open;
        }
    }

    /// Where the tokens of those that have a number are.
    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> {
        self.objects.iter().map(|object| object.position)
    }

    #[inline]
    fn find(&self, address: usize) -> Option<usize> {
        if self.objects.len() <= FEW {
            return self.objects.iter().position(|object| object.address == address);
        }
        self.places.get(&address).copied()
    }
}

/// Addresses of objects are distinct and multiples of 16; spreading their bits is hash enough.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only addresses are hashed");
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}
