//! Sets of offsets as sorted ranges: what leases, acks and journals are made of.

/// Offsets from `first` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First offset.
    pub first: u64,
    /// One past the last.
    pub end: u64,
}

impl Range {
    /// Offsets in it.
    #[must_use]
    pub fn len(self) -> u64 {
        self.end - self.first
    }

    /// Whether it holds none; ranges in a [`RangeSet`] never do.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.end <= self.first
    }
}

/// Offsets, as ranges that rise and neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The offsets from `first` up to, not including, `end`; nothing if that is empty.
    #[must_use]
    pub fn one(first: u64, end: u64) -> Self {
        if first < end {
            Self(vec![Range { first, end }])
        } else {
            Self::new()
        }
    }

    /// The offsets whose bit is set: bit `i % 64` of word `i / 64` stands for `base + i`.
    #[must_use]
    pub fn from_bitmap(base: u64, words: &[u64]) -> Self {
        let mut set = Self::new();
        for (index, &word) in words.iter().enumerate() {
            let start = base + 64 * index as u64;
            let mut rest = word;
            while rest != 0 {
                let from = rest.trailing_zeros();
                let len = (rest >> from).trailing_ones();
                set.push(start + u64::from(from), start + u64::from(from + len));
                if from + len == 64 {
                    break;
                }
                rest &= u64::MAX << (from + len);
            }
        }
        set
    }

    /// The ranges, rising.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Offsets in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|range| range.len()).sum()
    }

    /// The lowest offset.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|range| range.first)
    }

    /// One past the highest offset.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.0.last().map(|range| range.end)
    }

    /// Whether `offset` is in it.
    #[must_use]
    pub fn contains(&self, offset: u64) -> bool {
        let at = self.after(offset);
        at < self.0.len() && self.0[at].first <= offset
    }

    /// Every offset, rising.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|range| range.first..range.end)
    }

    /// Appends a range that begins at or after the end of all that is there.
    ///
    /// # Panics
    /// If it begins earlier.
    pub fn push(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.end == first => last.end = end,
            last => {
                assert!(
                    last.is_none_or(|last| last.end < first),
                    "ranges are pushed in order"
                );
                self.0.push(Range { first, end });
            }
        }
    }

    /// Adds the offsets from `first` up to, not including, `end`.
    pub fn insert(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        if self.0.last().is_none_or(|last| last.end <= first) {
            return self.push(first, end);
        }
        // Ranges that only touch the new one melt into it.
        let from = self.0.partition_point(|range| range.end < first);
        let to = self.0.partition_point(|range| range.first <= end);
        if from == to {
            self.0.insert(from, Range { first, end });
        } else {
            let merged = Range {
                first: first.min(self.0[from].first),
                end: end.max(self.0[to - 1].end),
            };
            self.0[from] = merged;
            self.0.drain(from + 1..to);
        }
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Self) {
        for range in &other.0 {
            self.insert(range.first, range.end);
        }
    }

    /// Takes out the offsets from `first` up to, not including, `end`.
    pub fn remove(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let from = self.after(first);
        let to = self.0.partition_point(|range| range.first < end);
        if from >= to {
            return;
        }
        let (head, tail) = (self.0[from], self.0[to - 1]);
        let left = Range {
            first: head.first,
            end: first,
        };
        let right = Range {
            first: end,
            end: tail.end,
        };
        match (left.is_empty(), right.is_empty()) {
            (true, true) => drop(self.0.drain(from..to)),
            (false, true) => {
                self.0[from] = left;
                self.0.drain(from + 1..to);
            }
            (true, false) => {
                self.0[to - 1] = right;
                self.0.drain(from..to - 1);
            }
            (false, false) if to - from == 1 => {
                self.0[from] = left;
                self.0.insert(to, right);
            }
            (false, false) => {
                self.0[from] = left;
                self.0[to - 1] = right;
                self.0.drain(from + 1..to - 1);
            }
        }
    }

    /// Takes out all of `other`.
    pub fn subtract(&mut self, other: &Self) {
        for range in &other.0 {
            self.remove(range.first, range.end);
        }
    }

    /// What lies in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.0.iter(), other.0.iter());
        let (mut x, mut y) = (a.next(), b.next());
        let mut both = Self::new();
        while let (Some(p), Some(q)) = (x, y) {
            both.push(p.first.max(q.first), p.end.min(q.end));
            if p.end < q.end {
                x = a.next();
            } else {
                y = b.next();
            }
        }
        both
    }

    /// What lies in it from `first` up to, not including, `end`.
    #[must_use]
    pub fn within(&self, first: u64, end: u64) -> Self {
        let mut found = Self::new();
        for range in &self.0[self.after(first)..] {
            if range.first >= end {
                break;
            }
            found.push(range.first.max(first), range.end.min(end));
        }
        found
    }

    /// Splits off the lowest `count` offsets.
    #[must_use]
    pub fn take_front(&mut self, count: u64) -> Self {
        let mut left = count;
        let mut whole = 0;
        let mut taken = Self::new();
        for range in &mut self.0 {
            if left == 0 {
                break;
            }
            if range.len() <= left {
                left -= range.len();
                taken.0.push(*range);
                whole += 1;
            } else {
                taken.0.push(Range {
                    first: range.first,
                    end: range.first + left,
                });
                range.first += left;
                left = 0;
            }
        }
        self.0.drain(..whole);
        taken
    }

    /// Empties it and keeps its room.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Index of the first range that ends after `offset`.
    fn after(&self, offset: u64) -> usize {
        self.0.partition_point(|range| range.end <= offset)
    }
}

impl FromIterator<Range> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range.first, range.end);
        }
        set
    }
}

#[cfg(test)]
mod tests;
