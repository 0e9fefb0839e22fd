//! Range sets against plain sets of numbers.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn model(set: &RangeSet) -> BTreeSet<u64> {
    let ranges = set.ranges();
    assert!(ranges.iter().all(|range| !range.is_empty()));
    assert!(ranges.is_sorted_by(|a, b| a.end < b.first), "{ranges:?}");
    let all: BTreeSet<u64> = set.iter().collect();
    assert_eq!(all.len() as u64, set.count());
    assert_eq!(all.first().copied(), set.first());
    assert_eq!(all.last().map(|last| last + 1), set.end());
    all
}

fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0_u64..200, 0_u64..20), 0..24).prop_map(|all| {
        all.into_iter()
            .map(|(first, len)| (first, first + len))
            .collect()
    })
}

fn set_of(ranges: &[(u64, u64)]) -> RangeSet {
    let mut set = RangeSet::new();
    for &(first, end) in ranges {
        set.insert(first, end);
    }
    set
}

fn numbers(ranges: &[(u64, u64)]) -> BTreeSet<u64> {
    ranges.iter().flat_map(|&(first, end)| first..end).collect()
}

proptest! {
    #[test]
    fn sets_behave_like_sets_of_numbers(a in ranges(), b in ranges(), count in 0_u64..200) {
        let (x, y) = (set_of(&a), set_of(&b));
        let (p, q) = (numbers(&a), numbers(&b));
        prop_assert_eq!(model(&x), p.clone());
        for offset in 0..230 {
            prop_assert_eq!(x.contains(offset), p.contains(&offset));
        }
        let mut union = x.clone();
        union.union(&y);
        prop_assert_eq!(model(&union), &p | &q);
        let mut rest = x.clone();
        rest.subtract(&y);
        prop_assert_eq!(model(&rest), &p - &q);
        prop_assert_eq!(model(&x.intersection(&y)), &p & &q);
        for &(first, end) in &b {
            prop_assert_eq!(model(&x.within(first, end)), &p & &(first..end).collect());
        }
        let mut back = x.clone();
        let front = back.take_front(count);
        let lowest: BTreeSet<u64> = p.iter().copied().take(count as usize).collect();
        prop_assert_eq!(model(&back), &p - &lowest);
        prop_assert_eq!(model(&front), lowest);
    }

    #[test]
    fn bitmaps_become_ranges(words in prop::collection::vec(any::<u64>() , 0..4), base in 0_u64..100) {
        let set = RangeSet::from_bitmap(base, &words);
        let bits: BTreeSet<u64> = (0..64 * words.len() as u64)
            .filter(|bit| words[(bit / 64) as usize] >> (bit % 64) & 1 == 1)
            .map(|bit| base + bit)
            .collect();
        prop_assert_eq!(model(&set), bits);
    }
}

#[test]
fn a_full_bitmap_is_one_range() {
    assert_eq!(
        RangeSet::from_bitmap(7, &[u64::MAX, u64::MAX]),
        RangeSet::one(7, 135)
    );
}
