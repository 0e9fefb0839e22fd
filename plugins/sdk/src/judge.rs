//! From a function on one message to a verdict on a call.

use std::fmt;

use tidegate_model::guest_call::{GuestCall, verdict_bytes};

use crate::message::Message;

/// A configured filter.
pub struct Judge(Box<CheckCall>);

type CheckCall = dyn Fn(&[u8]) -> Result<Vec<u8>, String>;

impl Judge {
    /// A judge that keeps the messages for which `keep` is true.
    #[must_use]
    pub fn new(keep: impl Fn(&Message<'_>) -> bool + 'static) -> Self {
        // The loop is inside the closure, so that `keep` is inlined into it.
        Self(Box::new(move |bytes| check(bytes, &keep)))
    }

    /// Judges one call; the verdict has a bit for each of its records.
    ///
    /// # Errors
    /// A sentence, if the call is in no layout that this SDK reads.
    pub fn check(&self, call: &[u8]) -> Result<Vec<u8>, String> {
        (self.0)(call)
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").finish_non_exhaustive()
    }
}

fn check(bytes: &[u8], keep: &impl Fn(&Message<'_>) -> bool) -> Result<Vec<u8>, String> {
    let call = GuestCall::parse(bytes).map_err(|error| error.to_string())?;
    let mut verdict = Vec::with_capacity(verdict_bytes(call.records()));
    let (mut judged, mut bits) = (0, 0);
    for batch in call.batches() {
        let batch = batch.map_err(|error| error.to_string())?;
        for record in batch.records() {
            bits |= u8::from(keep(&Message::new(&call, &batch, record))) << (judged % 8);
            judged += 1;
            if judged % 8 == 0 {
                verdict.push(std::mem::take(&mut bits));
            }
        }
    }
    if judged % 8 != 0 {
        verdict.push(bits);
    }
    if judged == call.records() {
        Ok(verdict)
    } else {
        Err(format!(
            "the call announces {} records and has {judged}",
            call.records()
        ))
    }
}
