//! A file's bytes: what a read sees, and what the platter may hold instead.
//!
//! Bytes lie in pages that copies of a disk share until one of them writes, so that a disk can be
//! copied at each of its changes.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::Random;

/// The least that a disk writes at once. Even that may tear.
pub(super) const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// Versions of a sector that are remembered between two syncs, beside the newest.
const VERSIONS_MAX: usize = 4;
/// One in so many sectors that a power cut meets is torn.
const TORN_ONE_IN: u64 = 16;

type Page = Arc<[u8; PAGE]>;
type Sector = Arc<[u8; SECTOR]>;

static ZEROES: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE]));

#[derive(Clone)]
pub(super) struct Contents {
    /// Zero from `len` on.
    pages: Vec<Page>,
    len: usize,
    /// The lengths since the last sync, beginning with the synced one and ending with `len`.
    lens: Vec<usize>,
    /// What sectors held before each write since the last sync, the synced version first.
    dirty: BTreeMap<usize, Vec<Sector>>,
    /// What the platter holds where a failed sync left the cache clean and wrong.
    stale: BTreeMap<usize, Sector>,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            len: 0,
            lens: vec![0],
            dirty: BTreeMap::new(),
            stale: BTreeMap::new(),
        }
    }
}

/// How a power cut treats the unsynced sectors of one file.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    Lost,
    /// Blocks of so many bytes are kept with a chance of so many eighths.
    Tossed {
        coin: Random,
        block: usize,
        eighths: u64,
    },
}

impl Contents {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Fills `buf` from `at` on; `false` if the file ends before.
    pub(super) fn read(&self, buf: &mut [u8], at: usize) -> bool {
        if at.checked_add(buf.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        let mut done = 0;
        while done < buf.len() {
            let (page, from) = ((at + done) / PAGE, (at + done) % PAGE);
            let count = (PAGE - from).min(buf.len() - done);
            buf[done..done + count].copy_from_slice(&self.pages[page][from..from + count]);
            done += count;
        }
        true
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Makes the file at least `len` bytes long.
    pub(super) fn grow(&mut self, len: usize) {
        if len > self.len {
            self.set_len(len);
        }
    }

    fn set_len(&mut self, len: usize) {
        let pages = len.div_ceil(PAGE).max(self.pages.len());
        self.pages.resize(pages, ZEROES.clone());
        self.len = len;
        if self.lens.last() != Some(&len) {
            self.lens.push(len);
        }
    }

    /// Empties the file, as opening it to be written anew does.
    pub(super) fn empty(&mut self) {
        self.put(&vec![0; self.len], 0);
        self.set_len(0);
    }

    /// Writes `bytes` at `at`, growing the file where it must.
    pub(super) fn write(&mut self, bytes: &[u8], at: usize) {
        self.grow(at + bytes.len());
        self.put(bytes, at);
    }

    fn put(&mut self, bytes: &[u8], at: usize) {
        let mut done = 0;
        while done < bytes.len() {
            let (sector, from) = ((at + done) / SECTOR, (at + done) % SECTOR);
            let count = (SECTOR - from).min(bytes.len() - done);
            let new = &bytes[done..done + count];
            done += count;
            let old = self.sector(sector);
            // The same bytes again leave nothing to lose.
            if old[from..from + count] == *new {
                continue;
            }
            let old = Arc::new(*old);
            let stale = self.stale.remove(&sector);
            let versions = self.dirty.entry(sector).or_default();
            versions.extend(stale);
            if versions.len() == VERSIONS_MAX {
                versions.remove(1);
            }
            versions.push(old);
            let page = Arc::make_mut(&mut self.pages[sector * SECTOR / PAGE]);
            page[sector * SECTOR % PAGE + from..][..count].copy_from_slice(new);
        }
    }

    fn sector(&self, sector: usize) -> &[u8; SECTOR] {
        let at = sector * SECTOR % PAGE;
        self.pages[sector * SECTOR / PAGE][at..at + SECTOR]
            .try_into()
            .expect("of that length")
    }

    fn set_sector(&mut self, sector: usize, bytes: &[u8; SECTOR]) {
        let page = Arc::make_mut(&mut self.pages[sector * SECTOR / PAGE]);
        page[sector * SECTOR % PAGE..][..SECTOR].copy_from_slice(bytes);
    }

    /// Changes a byte on the platter and in the cache; `false` if there is none.
    pub(super) fn flip(&mut self, at: usize, mask: u8) -> bool {
        if at < self.len {
            Arc::make_mut(&mut self.pages[at / PAGE])[at % PAGE] ^= mask;
        }
        at < self.len
    }

    pub(super) fn sync(&mut self) {
        self.dirty.clear();
        self.lens = vec![self.len];
    }

    /// A sync that failed: some of the sectors reached the platter, and all count as clean now.
    pub(super) fn fail_sync(&mut self, coin: &mut Random) {
        for (sector, mut versions) in std::mem::take(&mut self.dirty) {
            if coin.below(2) == 0 {
                self.stale.insert(sector, versions.swap_remove(0));
            }
        }
    }

    /// Reads see again what the platter holds, where it was thought clean.
    pub(super) fn drop_cache(&mut self) {
        for (sector, bytes) in std::mem::take(&mut self.stale) {
            self.set_sector(sector, &bytes);
        }
    }

    /// What the platter holds after a power cut.
    pub(super) fn cut(&mut self, fate: Fate) {
        self.drop_cache();
        let (mut coin, block, eighths) = match fate {
            Fate::Lost => (Random(0), SECTOR, 0),
            Fate::Tossed {
                coin,
                block,
                eighths,
            } => (coin, block.max(SECTOR), eighths),
        };
        let tossed = matches!(fate, Fate::Tossed { .. });
        let mut last = None;
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            let number = sector * SECTOR / block;
            let kept = match last {
                Some((last, kept)) if last == number => kept,
                _ => coin.below(8) < eighths,
            };
            last = Some((number, kept));
            if tossed && coin.below(TORN_ONE_IN) == 0 {
                self.tear(sector, &versions, &mut coin);
            } else if tossed && versions.len() > 1 && coin.below(4) == 0 {
                let between = 1 + coin.below(versions.len() as u64 - 1);
                self.set_sector(sector, &versions[usize::try_from(between).expect("small")]);
            } else if !kept {
                self.set_sector(sector, &versions[0]);
            }
        }
        let chosen = if tossed {
            usize::try_from(coin.below(self.lens.len() as u64)).expect("small")
        } else {
            0
        };
        let len = self.lens[chosen];
        if len < self.len {
            self.put(&vec![0; self.len - len], len);
        }
        self.set_len(len);
        self.sync();
    }

    /// The sector is, up to some byte, of one version, and of the next or the one before from there.
    fn tear(&mut self, sector: usize, versions: &[Sector], coin: &mut Random) {
        let newer = 1 + usize::try_from(coin.below(versions.len() as u64)).expect("small");
        let old = *versions[newer - 1];
        let new = versions
            .get(newer)
            .map_or(*self.sector(sector), |new| **new);
        let at = usize::try_from(coin.below(SECTOR as u64)).expect("small");
        let (mut head, tail) = if coin.below(2) == 0 {
            (new, old)
        } else {
            (old, new)
        };
        head[at..].copy_from_slice(&tail[at..]);
        self.set_sector(sector, &head);
    }
}
