//! What a guest sees is what is stored.

use tidegate_model::{Message, Value};
use tidegate_runtime::{Failure, Verdicts};

use crate::guest::Guest;
use crate::support::{Batch, NOW, TIGHT, shared};

/// A guest that fails unless its call is, byte for byte, what it was configured with.
fn comparing() -> Guest {
    Guest::default()
        .fields("(global $expected (mut i32) (i32.const 0)) (global $expected_len (mut i32) (i32.const 0))")
        .configure(
            r"(global.set $expected (local.get $ptr))
              (global.set $expected_len (local.get $len))
              (i32.const 96)",
        )
        .check(
            r"(local $i i32)
              (if (i32.ne (local.get $len) (global.get $expected_len)) (then unreachable))
              (loop $byte
                (if (i32.ne (i32.load8_u (i32.add (local.get $ptr) (local.get $i)))
                    (i32.load8_u (i32.add (global.get $expected) (local.get $i))))
                  (then unreachable))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $byte (i32.lt_u (local.get $i) (local.get $len))))
              (i32.store8 (i32.const 256) (i32.sub (i32.shl (i32.const 1)
                (i32.load offset=16 (local.get $ptr))) (i32.const 1)))
              (call $answer (i32.const 1))",
        )
}

fn messages() -> Vec<Message> {
    vec![
        Message::new(*b"{\"dest\":\"LAX\"}")
            .tag("UA")
            .group("N14228")
            .key(*b"UA1545")
            .property("distance", Value::I64(1400))
            .property("dest", Value::String("IAH".into())),
        Message::default(),
        Message::new(vec![0xff; 333]).property("x", Value::F64(f64::NAN)),
        Message::new(*b"").tag(""),
    ]
}

/// The call as `docs/formats/guest-call.md` lays it out, put together by hand from stored bytes.
fn expected(stored: &[(&Batch, u64)], bodies: bool) -> Vec<u8> {
    let mut call = Vec::new();
    let records: usize = stored
        .iter()
        .map(|(batch, _)| batch.section().count())
        .sum();
    call.extend_from_slice(&1u32.to_le_bytes());
    call.extend_from_slice(&u32::try_from(stored.len()).unwrap().to_le_bytes());
    call.extend_from_slice(&NOW.0.to_le_bytes());
    call.extend_from_slice(&u32::try_from(records).unwrap().to_le_bytes());
    call.extend_from_slice(&u32::from(bodies).to_le_bytes());
    for (batch, base) in stored {
        let section = batch.section();
        let (heads, body_block) = (section.head_bytes(), section.stored_body_bytes());
        let body_len = if bodies { body_block.len() } else { 0 };
        call.extend_from_slice(&base.to_le_bytes());
        call.extend_from_slice(&1000i64.to_le_bytes());
        for number in [0, section.count(), 0, heads.len(), 0, body_len] {
            call.extend_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
        }
        // A whole batch in one call is its section, but for padding behind the bodies.
        call.extend_from_slice(&batch.bytes[..batch.bytes.len() - body_block.len() + body_len]);
        call.resize(call.len().next_multiple_of(8), 0);
    }
    call
}

#[test]
fn tables_heads_and_bodies_are_the_stored_bytes() {
    let shared = shared();
    let (first, second) = (Batch::new(&messages()), Batch::tagged(&["a", "b"]).at(4));
    for bodies in [true, false] {
        let guest = if bodies {
            comparing()
        } else {
            comparing().heads_only()
        };
        let expected = expected(&[(&first, 0), (&second, 4)], bodies);
        let batches = [first.guest(), second.guest()];

        let mut filter = shared.bind_with(&guest, &expected, TIGHT).unwrap();
        let mut verdicts = Verdicts::new(&batches);
        filter.check(NOW, &batches, &mut verdicts).unwrap();
        assert_eq!(verdicts.kept(), 6);

        for at in 0..expected.len() {
            let mut other = expected.clone();
            other[at] ^= 1;
            if at % 37 != 0 {
                continue;
            }
            let mut filter = shared.bind_with(&guest, &other, TIGHT).unwrap();
            let error = filter
                .check(NOW, &batches, &mut Verdicts::new(&batches))
                .unwrap_err();
            assert!(matches!(error.failure, Failure::Trap { .. }), "byte {at}");
        }
    }
}

#[test]
fn compressed_bodies_arrive_uncompressed() {
    let shared = shared();
    let stored = Batch::new(&messages());
    let section = stored.section();
    let mut compressed = stored.bytes[..stored.bytes.len() - section.raw_body_len()].to_vec();
    compressed.extend_from_slice(&tidegate_model::compress::lz4(section.stored_body_bytes()));
    let bodies = section.stored_body_bytes();
    let packed = tidegate_model::Section::parse(&compressed, 4, 4, tidegate_model::Codec::Lz4)
        .unwrap()
        .with_bodies(bodies)
        .unwrap();
    let batch = tidegate_runtime::GuestBatch::new(
        packed,
        tidegate_model::Offset(0),
        tidegate_model::Timestamp(1000),
    );
    let expected = expected(&[(&stored, 0)], true);
    let mut filter = shared.bind_with(&comparing(), &expected, TIGHT).unwrap();
    let batches = [batch];
    let mut verdicts = Verdicts::new(&batches);
    filter.check(NOW, &batches, &mut verdicts).unwrap();
    assert!(verdicts.is_complete());
}
