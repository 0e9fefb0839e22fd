//! Messages that tell who they are.

use tidegate_model::checksum::crc32c;
use tidegate_model::{Codec, Section};
use tidegate_store::sim::Random;

use crate::sim::check::Finding;

const BODY_BYTES_MAX: u64 = 900;

/// A body that tells its id, all of it.
pub(super) fn body(id: u64) -> Vec<u8> {
    let len = 8 + Random(id).below(BODY_BYTES_MAX);
    let bytes = (8..len).map(|at| (at ^ id).to_le_bytes()[0]);
    id.to_le_bytes().into_iter().chain(bytes).collect()
}

fn id_of(found: &[u8]) -> Result<u64, Finding> {
    let id = found
        .get(..8)
        .map(|id| u64::from_le_bytes(id.try_into().unwrap()));
    let whole = id.filter(|id| body(*id) == found);
    whole.ok_or_else(|| Finding::Damaged(format!("{} bytes of no message", found.len())))
}

/// Distances from the base offset, and ids.
pub(super) fn messages_of(
    batch: &tidegate_broker::reply::DeliveredBatch,
) -> Result<Vec<(u16, u64)>, Finding> {
    if crc32c(&batch.section) != batch.section_crc {
        return Err(Finding::Damaged(format!("batch at {}", batch.base_offset)));
    }
    let section = Section::parse(
        &batch.section,
        usize::from(batch.count),
        u32::from(batch.span),
        Codec::None,
    );
    let section = section.map_err(|error| Finding::Damaged(error.to_string()))?;
    let message = |record: tidegate_model::Record<'_>| {
        let delta = u16::try_from(record.delta()).unwrap();
        Ok((delta, id_of(record.body().unwrap_or_default())?))
    };
    section.records().map(message).collect()
}
