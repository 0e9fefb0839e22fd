//! What a damaged header page said.
//!
//! Name and length of the file give base and size. The nonce is believed only where batches verify
//! under it: one that an index file or the page itself has needs one batch, one that is computed
//! from batches needs two that agree.

use tidegate_model::Timestamp;

use crate::bytes_at::u64_at;
use crate::check::folder::header_of;
use crate::check::raw::Headers;
use crate::folder::{Folder, KEY_INDEX, QUEUE_INDEX};
use crate::header::NonceMark;
use crate::position::LogPosition;
use crate::segment::{CLASS_LOG, CLASS_REWRITTEN, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::vfs::Vfs;

/// The nonce's place in the header page, in the first page of a key index, and in a queue index.
const NONCE_IN_PAGE: u64 = 32;
const NONCE_IN_KEY_INDEX: u64 = 16;
const NONCE_IN_QUEUE_INDEX: u64 = 32;

/// How it stands with a segment's header page.
pub(super) enum Page {
    Whole,
    Mended { header: SegmentHeader, why: String },
    Lost { why: String },
}

/// `next` is the base of the segment behind it. Segments at `floor` or later are as they were
/// appended.
pub(super) fn look(
    vfs: &dyn Vfs,
    folder: &Folder,
    segment: &Segment,
    next: Option<u64>,
    floor: u64,
) -> std::io::Result<Page> {
    let Err(wrong) = header_of(segment, vfs) else {
        return Ok(Page::Whole);
    };
    let lost = |why: &str| {
        Ok(Page::Lost {
            why: format!("{wrong}; {why}"),
        })
    };
    if read_page(vfs, segment).is_some_and(|page| SegmentHeader::decode(&page).is_ok()) {
        return lost("the page itself is whole, so the file is not the one that it was");
    }
    let headers = Headers::of(segment, vfs);
    let proved = match headers.most() {
        Some((mark, count)) if count * 2 > headers.count() => {
            let known = candidates(vfs, folder, segment).into_iter();
            let known = known.map(|(nonce, of)| (nonce, of.to_owned()));
            let mut known = known.filter(|(nonce, _)| NonceMark::of(*nonce) == mark);
            known
                .next()
                .map(|(nonce, of)| {
                    (
                        nonce,
                        format!("its nonce is {of}, and {count} batches verify under it"),
                    )
                })
                .or_else(|| {
                    let why = format!(
                        "its nonce follows from {count} batches, which all verify under it"
                    );
                    (count > 1).then(|| (mark.nonce(), why))
                })
        }
        None if !headers.unreadable => {
            let why = "no batch is in it, so any nonce does".to_owned();
            Some((vfs.random()?, why))
        }
        _ => None,
    };
    let Some((nonce, why)) = proved else {
        return lost("no nonce is known under which its batches verify");
    };
    // What was rewritten is shorter than its slot, and has batches of queues only.
    let has_gap = next.is_some_and(|next| segment.end() < next);
    let is_rewritten = has_gap && segment.base() < floor && !headers.of_log && headers.count() > 0;
    Ok(Page::Mended {
        header: SegmentHeader {
            base: LogPosition(segment.base()),
            size: segment.size(),
            nonce,
            created: headers.first_append.unwrap_or(Timestamp(0)),
            class: if is_rewritten {
                CLASS_REWRITTEN
            } else {
                CLASS_LOG
            },
        },
        why: format!("{wrong}; {why}"),
    })
}

pub(super) fn read_page(vfs: &dyn Vfs, segment: &Segment) -> Option<[u8; SEGMENT_HEADER_BYTES]> {
    let mut page = [0; SEGMENT_HEADER_BYTES];
    let file = vfs.open(segment.path()).ok()?;
    file.read_exact_at(&mut page, 0).ok()?;
    Some(page)
}

/// Numbers that may be the nonce, the best first: whether they are is for the batches to say.
fn candidates(vfs: &dyn Vfs, folder: &Folder, segment: &Segment) -> Vec<(u64, &'static str)> {
    let at = |path: &std::path::Path, offset| {
        let mut bytes = [0; 8];
        let file = vfs.open(path).ok()?;
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(u64_at(&bytes, 0))
    };
    let index = folder.log_file(segment.base(), QUEUE_INDEX);
    let keys = folder.log_file(segment.base(), KEY_INDEX);
    let all = [
        (at(&index, NONCE_IN_QUEUE_INDEX), "in its queue index"),
        (at(&keys, NONCE_IN_KEY_INDEX), "in its key index"),
        (at(segment.path(), NONCE_IN_PAGE), "still in the page"),
    ];
    all.into_iter()
        .filter_map(|(nonce, of)| Some((nonce?, of)))
        .collect()
}
