//! What is decided about the records of a check.

use std::ops::Range;

use tidegate_model::guest_call::{GuestBatch, verdict_bytes};

/// One bit per record over all batches of a check, decided from the front: by the guest, or by the
/// caller where a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdicts {
    bits: Vec<u8>,
    /// Where each batch begins, and the end of the last.
    starts: Vec<usize>,
    decided: usize,
}

impl Verdicts {
    /// Nothing decided yet about these batches.
    #[must_use]
    pub fn new(batches: &[GuestBatch<'_>]) -> Self {
        let mut starts = Vec::with_capacity(batches.len() + 1);
        let mut records = 0;
        starts.push(0);
        for batch in batches {
            records += batch.count();
            starts.push(records);
        }
        Self {
            bits: vec![0; verdict_bytes(records)],
            starts,
            decided: 0,
        }
    }

    /// Records of all batches together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Records decided so far, counted from the first.
    #[must_use]
    pub fn decided(&self) -> usize {
        self.decided
    }

    /// Whether all records are decided.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.decided == self.len()
    }

    /// Whether the record at `index` is kept; an undecided one isn't.
    ///
    /// # Panics
    /// At or beyond [`Self::len`].
    #[must_use]
    pub fn keeps(&self, index: usize) -> bool {
        assert!(index < self.len(), "record {index} of {}", self.len());
        self.bits[index / 8] >> (index % 8) & 1 == 1
    }

    /// The records of one batch, as indexes over all batches.
    ///
    /// # Panics
    /// If there is no such batch.
    #[must_use]
    pub fn batch_range(&self, batch: usize) -> Range<usize> {
        self.starts[batch]..self.starts[batch + 1]
    }

    /// The verdicts on one batch's records, in order.
    ///
    /// # Panics
    /// If there is no such batch.
    pub fn batch(&self, batch: usize) -> impl ExactSizeIterator<Item = bool> + '_ {
        self.batch_range(batch).map(|index| self.keeps(index))
    }

    /// How many records are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.bits
            .iter()
            .map(|byte| byte.count_ones() as usize)
            .sum()
    }

    /// Decides the next `count` undecided records alike, as an on-error policy does.
    ///
    /// # Panics
    /// If fewer are undecided.
    pub fn decide(&mut self, count: usize, keep: bool) {
        assert!(
            count <= self.len() - self.decided,
            "{count} records too many"
        );
        for index in self.decided..self.decided + count {
            self.bits[index / 8] |= u8::from(keep) << (index % 8);
        }
        self.decided += count;
    }

    /// Takes a guest's answer about the next `count` records.
    pub(crate) fn take(&mut self, count: usize, verdict: &[u8]) -> Result<usize, String> {
        let expected = verdict_bytes(count);
        if verdict.len() != expected {
            return Err(format!(
                "it has {} bytes; a verdict on {count} records has {expected}",
                verdict.len()
            ));
        }
        if !count.is_multiple_of(8) && verdict[expected - 1] >> (count % 8) != 0 {
            return Err(format!("bits beyond its {count} records are set"));
        }
        let (first, shift) = (self.decided / 8, self.decided % 8);
        for (at, &byte) in verdict.iter().enumerate() {
            self.bits[first + at] |= byte << shift;
            // Bits that don't fit go on in the next byte; past the last record they are zero.
            if shift != 0 && byte >> (8 - shift) != 0 {
                self.bits[first + at + 1] |= byte >> (8 - shift);
            }
        }
        self.decided += count;
        Ok(verdict.iter().map(|byte| byte.count_ones() as usize).sum())
    }

    /// Batch, and records to skip in it, of the first undecided record.
    pub(crate) fn position(&self) -> (usize, usize) {
        let batch = self.starts.partition_point(|&start| start <= self.decided) - 1;
        (batch, self.decided - self.starts[batch])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(counts: &[usize]) -> Verdicts {
        let mut starts = vec![0];
        for count in counts {
            starts.push(starts.last().unwrap() + count);
        }
        Verdicts {
            bits: vec![0; verdict_bytes(*starts.last().unwrap())],
            starts,
            decided: 0,
        }
    }

    #[test]
    fn answers_land_at_any_bit() {
        for ahead in 0..17 {
            let mut verdicts = verdicts(&[ahead, 11]);
            verdicts.decide(ahead, false);
            assert_eq!(verdicts.position(), (1, 0));
            assert_eq!(verdicts.take(11, &[0b1010_0101, 0b0000_0101]), Ok(6));
            let bits: Vec<_> = verdicts.batch(1).map(u8::from).collect();
            assert_eq!(bits, [1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1], "{ahead} ahead");
            assert!(verdicts.is_complete());
            assert_eq!(verdicts.kept(), 6);
        }
    }

    #[test]
    fn wrong_lengths_and_stray_bits_are_refused() {
        let mut verdicts = verdicts(&[11]);
        for answer in [&[][..], &[0], &[0, 0, 0], &[0, 0b1000]] {
            assert!(verdicts.take(11, answer).is_err(), "{answer:?}");
        }
        assert_eq!(verdicts.decided(), 0);
        assert_eq!(verdicts.kept(), 0);
    }

    #[test]
    fn positions_skip_empty_batches() {
        let mut verdicts = verdicts(&[2, 0, 0, 3]);
        verdicts.decide(1, true);
        assert_eq!(verdicts.position(), (0, 1));
        verdicts.decide(1, false);
        assert_eq!(verdicts.position(), (3, 0));
        assert!(verdicts.keeps(0) && !verdicts.keeps(1));
    }
}
