//! A cursor against a map with one entry per offset.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SPAN: u64 = 8;
const BATCHES: u64 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Parked(u16, i64),
}

#[derive(Clone, Debug)]
enum Step {
    Done(u64, u64),
    Park {
        batch: u64,
        bits: u8,
        attempt: u16,
        due: i64,
    },
    Trim(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..SPAN * BATCHES).prop_map(Step::Trim),
        4 => (0..SPAN * BATCHES, 1_u64..12).prop_map(|(first, len)| Step::Done(first, first + len)),
        4 => (0..BATCHES, any::<u8>(), 2_u16..4, 0_i64..3).prop_map(|(batch, bits, attempt, due)| {
            Step::Park {
                batch,
                bits,
                attempt,
                due,
            }
        }),
    ]
}

proptest! {
    #[test]
    fn a_cursor_is_a_map_of_fates(start in 0_u64..10, steps in prop::collection::vec(step(), 0..40)) {
        let mut state = CursorState::new(Offset(start), LeaseId(0));
        let mut fates: BTreeMap<u64, Fate> = (0..start).map(|offset| (offset, Fate::Done)).collect();
        for step in steps {
            match step {
                Step::Done(first, end) => {
                    state.apply(&Change::Done { offsets: RangeSet::one(first, end) });
                    fates.extend((first..end).map(|offset| (offset, Fate::Done)));
                }
                Step::Trim(start) => {
                    let left = (0..start).filter(|offset| fates.get(offset) != Some(&Fate::Done));
                    assert_eq!(state.trim(start), left.count() as u64);
                    fates.extend((0..start).map(|offset| (offset, Fate::Done)));
                }
                Step::Park { batch, bits, attempt, due } => {
                    let base = batch * SPAN;
                    let offsets = RangeSet::from_bitmap(base, &[u64::from(bits)]);
                    for offset in offsets.iter() {
                        if fates.get(&offset) != Some(&Fate::Done) {
                            fates.insert(offset, Fate::Parked(attempt, due));
                        }
                    }
                    state.apply(&Change::Park {
                        offsets,
                        parked: Parked {
                            base_offset: Offset(base),
                            span: SPAN as u16,
                            attempt,
                            due: Timestamp(due),
                            record_bytes: 1,
                            judge: false,
                        },
                    });
                }
            }
            check(&state, &fates);
        }
    }
}

fn check(state: &CursorState, fates: &BTreeMap<u64, Fate>) {
    let committed = (0..).find(|offset| !fates.contains_key(offset)).unwrap();
    assert_eq!(state.committed(), committed);
    let consumed = (0..).find(|offset| fates.get(offset) != Some(&Fate::Done));
    assert_eq!(Some(state.consumed()), consumed);
    for offset in 0..SPAN * BATCHES {
        let base = offset / SPAN * SPAN;
        let one = RangeSet::one(offset, offset + 1);
        let done = !state.done_of(base, &one).is_empty();
        assert_eq!(
            done,
            fates.get(&offset) == Some(&Fate::Done),
            "offset {offset}"
        );
        let parked: Vec<_> = state
            .parked_in(base)
            .filter(|(_, run)| run.offsets.contains(offset))
            .map(|(key, _)| Fate::Parked(key.attempt, key.due.0))
            .collect();
        let expected: Vec<_> = fates
            .get(&offset)
            .filter(|fate| **fate != Fate::Done)
            .copied()
            .into_iter()
            .collect();
        assert_eq!(parked, expected, "offset {offset}");
    }
    assert!(state.parked().values().all(|run| !run.offsets.is_empty()));
}

#[test]
fn a_cursor_set_anew_forgets_acks_and_parked_messages() {
    let mut state = CursorState::new(Offset(5), LeaseId(1));
    state.apply(&Change::Done {
        offsets: RangeSet::one(7, 9),
    });
    state.apply(&Change::Set {
        at: Offset(2),
        lease_floor: LeaseId(9),
    });
    assert_eq!(state, CursorState::new(Offset(2), LeaseId(9)));
}
