//! The guest call: what the host gathers of stored batches, and what a guest reads there.

use tidegate_model::guest_call::{CallBuilder, GuestBatch, GuestCall};
use tidegate_model::{Codec, Offset, Section, Timestamp};

use super::record::{self, PREFIX_BYTES, parse};

/// Takes an input as [`record::run`] does; gathers every window of the section, and expects a guest
/// to find there the bytes that are stored. The same input is also read as a call.
///
/// # Panics
/// If a guest would read anything else than what is stored.
pub fn run(input: &[u8]) {
    if let Ok(call) = GuestCall::parse(input) {
        for batch in call.batches() {
            let Ok(batch) = batch else { break };
            assert!(batch.body_bytes().len() <= input.len());
        }
    }
    let Some((section, codec)) = parse(input) else {
        return;
    };
    if codec == Codec::None {
        for records in [1, 2, 256] {
            gather(&section, records, true);
            gather(&section, records, false);
        }
    } else {
        gather(&section, 3, false);
    }
}

/// One call per window of at most `records` records.
fn gather(section: &Section<'_>, records: usize, with_bodies: bool) {
    let base = Offset(1 << 40);
    let whole = GuestBatch::new(*section, base, Timestamp(7));
    let mut builder = CallBuilder::new();
    let mut skip = 0;
    while skip < whole.count() {
        let count = records.min(whole.count() - skip);
        builder.begin(Timestamp(9), with_bodies);
        let header = builder.len();
        builder.push(&whole, skip, count);
        assert_eq!(
            builder.len() - header,
            whole.call_bytes(skip, count, with_bodies),
            "the announced size is not the size"
        );
        let call = GuestCall::parse(builder.finish()).expect("the builder writes calls");
        assert_eq!(call.records(), count);
        let batch = call
            .batches()
            .next()
            .expect("one batch was pushed")
            .expect("the builder writes whole batches");
        assert_eq!(batch.base_offset(), base);
        for (index, read) in batch.records().enumerate() {
            let stored = section.record(skip + index);
            assert_eq!(read.delta(), stored.delta());
            assert_eq!(read.head_bytes(), stored.head_bytes());
            if with_bodies {
                assert_eq!(read.body(), stored.body());
            }
        }
        skip += count;
    }
}

/// The seeds of the record section, and a call over one of them.
///
/// # Panics
/// If a seed can't be built, which its test would show.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = record::seeds();
    let (_, batch) = seeds
        .iter()
        .find(|(name, _)| name == "batch")
        .expect("the record section has a seed of this name");
    let section = Section::parse(&batch[PREFIX_BYTES..], 3, 3, Codec::None).expect("it is valid");
    let mut builder = CallBuilder::new();
    builder.begin(Timestamp(1_373_241_600_000), true);
    builder.push(&GuestBatch::new(section, Offset(5), Timestamp(1)), 0, 3);
    builder.push(&GuestBatch::new(section, Offset(8), Timestamp(2)), 1, 1);
    seeds.push(("call".to_owned(), builder.finish().to_vec()));
    seeds
}
