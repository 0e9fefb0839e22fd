//! Counting a protobuf message's fields before it is decoded: an element of a list may take a hundred
//! times as much memory as bytes.

/// Fields of a message and of the messages right in it, at most `enough`. What is no valid message is
/// counted up to there: the decoder stops at the same place.
pub(super) fn count(bytes: &[u8], enough: usize) -> usize {
    let mut counted = 0;
    let mut rest = bytes;
    while counted < enough
        && let Some(field) = next(&mut rest)
    {
        counted += 1;
        let mut inner = field;
        while counted < enough && next(&mut inner).is_some() {
            counted += 1;
        }
    }
    counted
}

/// Takes a field off; its bytes if it has a length, else none. Groups' fields count as their parent's.
fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let wire_type = varint(rest)? & 7;
    let len = match wire_type {
        0 => {
            varint(rest)?;
            return Some(&[]);
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        3 | 4 => return Some(&[]),
        5 => 4,
        _ => return None,
    };
    let (field, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(if wire_type == 2 { field } else { &[] })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::{BindingSpec, CreateView, Request, RequestKind, ViewRef};

    #[test]
    fn lists_are_counted_whatever_their_elements_take() {
        let view = |bindings| Request {
            kind: Some(RequestKind::CreateView(CreateView {
                dry_run: false,
                view: Some(ViewRef::default()),
                bindings: vec![BindingSpec::default(); bindings],
            })),
        };
        // The request's one field, the view's name, and its bindings.
        assert_eq!(count(&view(3).encode_to_vec(), 100), 5);
        assert_eq!(count(&view(1000).encode_to_vec(), 100), 100);
        assert_eq!(count(&[], 100), 0);
        assert_eq!(count(&[0xff; 30], 100), 0);
        assert_eq!(count(&[0x0a, 0x7f, 0], 100), 0, "cut short");
    }
}
