//! A map from queue ids for tables that have a row for each of a million queues.
//!
//! Ids are given one after another and never again, so most places of a page are taken: a row costs
//! its value and an eighth of a byte. The place of a removed queue stays empty until its page goes.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::QueueId;

/// Rows of a page; a multiple of 64.
const PAGE_ROWS: u64 = 256;
const WORDS: usize = (PAGE_ROWS / 64) as usize;
/// Pages that are found by a single step: those of the first four million ids. A place takes 48 bytes
/// even where its page is gone, so there is an end.
const NEAR_PAGES: usize = 1 << 14;

/// Values by queue id, in the order of ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueTable<V> {
    /// By number; the last one is there, so that equal tables are equal.
    near: Vec<Option<Page<V>>>,
    /// By number, from [`NEAR_PAGES`] on.
    far: BTreeMap<u64, Page<V>>,
    len: usize,
}

/// Rows that aren't taken hold the default value.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Page<V> {
    taken: [u64; WORDS],
    rows: Box<[V]>,
}

impl<V> Default for QueueTable<V> {
    fn default() -> Self {
        Self {
            near: Vec::new(),
            far: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<V> QueueTable<V> {
    /// Queues that have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no queue has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a queue.
    #[must_use]
    pub fn get(&self, queue: QueueId) -> Option<&V> {
        let (number, row) = place(queue);
        let page = match near(number) {
            Some(at) => self.near.get(at)?.as_ref()?,
            None => self.far.get(&number)?,
        };
        page.is_taken(row).then(|| &page.rows[row])
    }

    /// The value of a queue, to be changed.
    pub fn get_mut(&mut self, queue: QueueId) -> Option<&mut V> {
        let (number, row) = place(queue);
        let page = self.page_mut(number)?;
        page.is_taken(row).then(|| &mut page.rows[row])
    }

    fn page_mut(&mut self, number: u64) -> Option<&mut Page<V>> {
        match near(number) {
            Some(at) => self.near.get_mut(at)?.as_mut(),
            None => self.far.get_mut(&number),
        }
    }

    /// The queues and their values, ids rising.
    pub fn iter(&self) -> impl Iterator<Item = (QueueId, &V)> {
        self.from(QueueId(0))
    }

    /// The queues from `first` on, inclusive, and their values, ids rising.
    pub fn from(&self, first: QueueId) -> impl Iterator<Item = (QueueId, &V)> {
        let (first_page, first_row) = place(first);
        let near_from = near(first_page).unwrap_or(NEAR_PAGES);
        let near = self.near.iter().enumerate().skip(near_from);
        let near = near.filter_map(|(at, page)| Some((at as u64, page.as_ref()?)));
        let far = self.far.range(first_page..);
        let far = far.map(|(number, page)| (*number, page));
        near.chain(far).flat_map(move |(number, page)| {
            let from = if number == first_page { first_row } else { 0 };
            (from..page.rows.len())
                .filter(|row| page.is_taken(*row))
                .map(move |row| (QueueId(number * PAGE_ROWS + row as u64), &page.rows[row]))
        })
    }
}

impl<V: Clone + Default> QueueTable<V> {
    /// The value of a queue, which is made by `make` if there is none.
    pub fn get_or_insert_with(&mut self, queue: QueueId, make: impl FnOnce() -> V) -> &mut V {
        let (number, row) = place(queue);
        let page = match near(number) {
            Some(at) => {
                if at >= self.near.len() {
                    self.near.resize_with(at + 1, || None);
                }
                self.near[at].get_or_insert_with(Page::empty)
            }
            None => self.far.entry(number).or_insert_with(Page::empty),
        };
        if !page.is_taken(row) {
            page.take(row);
            page.rows[row] = make();
            self.len += 1;
        }
        &mut page.rows[row]
    }

    /// Gives a queue a value; the one that it had comes back.
    pub fn insert(&mut self, queue: QueueId, value: V) -> Option<V> {
        let before = self.len;
        let place = self.get_or_insert_with(queue, V::default);
        let old = core::mem::replace(place, value);
        (self.len == before).then_some(old)
    }

    /// Takes a queue's value away.
    pub fn remove(&mut self, queue: QueueId) -> Option<V> {
        let (number, row) = place(queue);
        let page = self.page_mut(number)?;
        if !page.is_taken(row) {
            return None;
        }
        let value = core::mem::take(&mut page.rows[row]);
        page.taken[row / 64] &= !(1 << (row % 64));
        if page.taken == [0; WORDS] {
            self.remove_page(number);
        }
        self.len -= 1;
        Some(value)
    }

    fn remove_page(&mut self, number: u64) {
        let Some(at) = near(number) else {
            self.far.remove(&number);
            return;
        };
        self.near[at] = None;
        let kept = self.near.iter().rposition(Option::is_some);
        self.near.truncate(kept.map_or(0, |last| last + 1));
    }
}

impl<V: Clone + Default> FromIterator<(QueueId, V)> for QueueTable<V> {
    fn from_iter<I: IntoIterator<Item = (QueueId, V)>>(rows: I) -> Self {
        let mut table = Self::default();
        for (queue, value) in rows {
            table.insert(queue, value);
        }
        table
    }
}

impl<V> Page<V> {
    fn is_taken(&self, row: usize) -> bool {
        self.taken[row / 64] & (1 << (row % 64)) != 0
    }

    fn take(&mut self, row: usize) {
        self.taken[row / 64] |= 1 << (row % 64);
    }
}

impl<V: Clone + Default> Page<V> {
    fn empty() -> Self {
        Self {
            taken: [0; WORDS],
            rows: vec![V::default(); WORDS * 64].into_boxed_slice(),
        }
    }
}

/// The page of a queue, and its row there.
fn place(queue: QueueId) -> (u64, usize) {
    let row = usize::try_from(queue.0 % PAGE_ROWS).expect("below a page's rows");
    (queue.0 / PAGE_ROWS, row)
}

/// The place of a page that is found by a single step.
fn near(page: u64) -> Option<usize> {
    usize::try_from(page).ok().filter(|at| *at < NEAR_PAGES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64, u32),
        GetOrInsert(u64, u32),
        Remove(u64),
        Add(u64, u32),
        From(u64),
    }

    const FIRST_FAR: u64 = NEAR_PAGES as u64 * PAGE_ROWS;

    /// Ids that share pages, ids at the edges of pages, of the near ones, and the last there is.
    fn id() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..8_u64,
            250..262_u64,
            510..520_u64,
            FIRST_FAR - 2..FIRST_FAR + 2,
            Just(u64::MAX),
            Just(u64::MAX - 256)
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (id(), any::<u32>()).prop_map(|(id, value)| Op::Insert(id, value)),
            (id(), any::<u32>()).prop_map(|(id, value)| Op::GetOrInsert(id, value)),
            id().prop_map(Op::Remove),
            (id(), 0..10_u32).prop_map(|(id, more)| Op::Add(id, more)),
            id().prop_map(Op::From),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_map(ops in prop::collection::vec(op(), 0..100)) {
            let mut table = QueueTable::default();
            let mut model = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Insert(id, value) => {
                        prop_assert_eq!(table.insert(QueueId(id), value), model.insert(id, value));
                    }
                    Op::GetOrInsert(id, value) => {
                        let got = *table.get_or_insert_with(QueueId(id), || value);
                        prop_assert_eq!(got, *model.entry(id).or_insert(value));
                    }
                    Op::Remove(id) => {
                        prop_assert_eq!(table.remove(QueueId(id)), model.remove(&id));
                    }
                    Op::Add(id, more) => {
                        let one = table.get_mut(QueueId(id)).map(|value| {
                            *value = value.wrapping_add(more);
                            *value
                        });
                        let other = model.get_mut(&id).map(|value: &mut u32| {
                            *value = value.wrapping_add(more);
                            *value
                        });
                        prop_assert_eq!(one, other);
                    }
                    Op::From(id) => {
                        let one: Vec<_> =
                            table.from(QueueId(id)).map(|(id, value)| (id.0, *value)).collect();
                        let other: Vec<_> =
                            model.range(id..).map(|(id, value)| (*id, *value)).collect();
                        prop_assert_eq!(one, other);
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.is_empty(), model.is_empty());
            }
            let again: QueueTable<u32> =
                model.iter().map(|(id, value)| (QueueId(*id), *value)).collect();
            prop_assert_eq!(&again, &table, "equal whatever was removed meanwhile");
            prop_assert_eq!(table.iter().count(), model.len());
        }
    }
}
