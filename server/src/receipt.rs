//! Receipt handles: what a holder shows to settle a lease, also after a restart.

use aws_lc_rs::hmac;
use tidegate_broker::id::CursorId;
use tidegate_broker::request::Receipt;

use crate::identity::SECRET_BYTES;

/// Makes and checks the MACs of receipt handles.
pub(crate) struct Receipts {
    key: hmac::Key,
}

impl Receipts {
    pub(crate) fn new(key: &[u8; SECRET_BYTES]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
        }
    }

    /// `receipt` with its MAC, good for this cursor alone: ids of cursors are never reused, so a
    /// handle dies with its group, topic or view.
    pub(crate) fn sign(&self, cursor: CursorId, receipt: Receipt) -> Receipt {
        let tag = hmac::sign(&self.key, &signed_bytes(cursor, &receipt));
        let mut mac = [0; 16];
        mac.copy_from_slice(&tag.as_ref()[..16]);
        Receipt { mac, ..receipt }
    }

    pub(crate) fn is_genuine(&self, cursor: CursorId, receipt: &Receipt) -> bool {
        let tag = hmac::sign(&self.key, &signed_bytes(cursor, receipt));
        aws_lc_rs::constant_time::verify_slices_are_equal(&tag.as_ref()[..16], &receipt.mac).is_ok()
    }
}

fn signed_bytes(cursor: CursorId, receipt: &Receipt) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[0..8].copy_from_slice(&cursor.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&receipt.queue.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&receipt.base_offset.0.to_le_bytes());
    bytes[24..26].copy_from_slice(&receipt.span.to_le_bytes());
    bytes[26..28].copy_from_slice(&receipt.attempt.to_le_bytes());
    bytes[28..36].copy_from_slice(&receipt.lease.0.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::{LeaseId, Offset, QueueId};

    #[test]
    fn any_changed_field_is_a_forgery() {
        let receipts = Receipts::new(&[7; SECRET_BYTES]);
        let unsigned = Receipt {
            queue: QueueId(3),
            base_offset: Offset(4),
            span: 5,
            attempt: 6,
            lease: LeaseId(7),
            mac: [0; 16],
        };
        let good = receipts.sign(CursorId(1), unsigned);
        assert!(receipts.is_genuine(CursorId(1), &good));
        assert!(!receipts.is_genuine(CursorId(2), &good));
        for bad in [
            Receipt {
                queue: QueueId(9),
                ..good
            },
            Receipt {
                base_offset: Offset(9),
                ..good
            },
            Receipt { span: 9, ..good },
            Receipt { attempt: 9, ..good },
            Receipt {
                lease: LeaseId(9),
                ..good
            },
            unsigned,
        ] {
            assert!(!receipts.is_genuine(CursorId(1), &bad), "{bad:?}");
        }
        assert!(!Receipts::new(&[8; SECRET_BYTES]).is_genuine(CursorId(1), &good));
    }
}
