//! The key index of one sealed segment: found on the disk, or made from the segment.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::build::build;
use super::kix::{Kix, KixError};
use super::memory::Filters;
use crate::error::ReadError;
use crate::folder::{Folder, KEY_INDEX, file_name, write_durably};
use crate::segment::Segment;
use crate::sync::lock;
use crate::vfs::{Vfs, VfsFile};

/// Where key indexes lie, and what of them is kept in memory.
pub(crate) struct Shelf {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) folder: Folder,
    pub(super) filters: Filters,
}

/// What a segment's key index says of a key.
pub(super) struct Candidates {
    /// Places of batches that may hold it, rising.
    pub(super) places: Vec<u32>,
    /// Batches at this place or later may hold it as well.
    pub(super) covered: u32,
}

impl Candidates {
    /// Any batch may hold it.
    pub(super) fn any() -> Self {
        Self {
            places: Vec::new(),
            covered: 0,
        }
    }
}

pub(crate) struct SealedKeys {
    shelf: Arc<Shelf>,
    segment: Arc<Segment>,
    /// The first page of the file, once it was read; held while the index is made, so that it is
    /// made once.
    kix: Mutex<Option<Kix>>,
}

impl SealedKeys {
    pub(super) fn new(shelf: Arc<Shelf>, segment: Arc<Segment>) -> Self {
        Self {
            shelf,
            segment,
            kix: Mutex::new(None),
        }
    }

    pub(super) fn is_of(&self, segment: &Arc<Segment>) -> bool {
        Arc::ptr_eq(&self.segment, segment)
    }

    pub(crate) fn base(&self) -> u64 {
        self.segment.base()
    }

    /// Makes the index unless it is there.
    pub(crate) fn ensure(&self) -> Result<(), ReadError> {
        self.open(&mut 1).map(|_| ())
    }

    /// Opens the index. If it must be made that takes one of `builds`; `None` if none is left.
    pub(super) fn open(&self, builds: &mut u32) -> Result<Option<Kix>, ReadError> {
        let mut known = lock(&self.kix);
        if known.is_some() {
            return Ok(*known);
        }
        let nonce = self.segment.nonce()?;
        match self.open_file(nonce) {
            Ok(kix) => *known = Some(kix),
            Err(error) => {
                if *builds == 0 {
                    return Ok(None);
                }
                *builds -= 1;
                let is_new =
                    matches!(&error, KixError::Io(io) if io.kind() == io::ErrorKind::NotFound);
                if !is_new {
                    tracing::warn!(segment = self.base(), %error, "rebuilding a key index");
                }
                *known = Some(self.build(nonce)?.0);
            }
        }
        Ok(*known)
    }

    fn open_file(&self, nonce: u64) -> Result<Kix, KixError> {
        let file = self.file()?;
        let kix = Kix::open(&file.as_ref(), nonce)?;
        // Batches that couldn't be read then may be whole now: restored from elsewhere.
        if kix.info().base != self.base() || kix.info().unreadable > 0 {
            return Err(KixError::Segment);
        }
        Ok(kix)
    }

    fn file(&self) -> io::Result<Arc<dyn VfsFile>> {
        let path = self.shelf.folder.log_file(self.base(), KEY_INDEX);
        self.shelf.vfs.open(&path)
    }

    /// Makes the index and writes its file. If that fails the index serves once, and is made again.
    fn build(&self, nonce: u64) -> Result<(Kix, Bytes), ReadError> {
        let bytes = build(&self.segment, nonce)?;
        let kix = Kix::open(&bytes, nonce).expect("just made");
        let shelf = &self.shelf;
        let name = file_name(self.base(), KEY_INDEX);
        if let Err(error) = write_durably(shelf.vfs.as_ref(), &shelf.folder.log, &name, &bytes) {
            tracing::warn!(segment = self.base(), %error, "writing a key index failed");
        }
        Ok((kix, bytes))
    }

    /// Where batches with a key of this hash may lie. A damaged index is made again if one of
    /// `builds` is left; else any batch may hold the key.
    pub(super) fn candidates(&self, hash: u64, builds: &mut u32) -> Result<Candidates, ReadError> {
        let Some(kix) = self.open(builds)? else {
            return Ok(Candidates::any());
        };
        match self.look_up(&kix, hash) {
            Ok(places) => Ok(Candidates {
                places,
                covered: kix.info().covered,
            }),
            Err(error) if *builds == 0 => {
                tracing::debug!(segment = self.base(), %error, "looking without a key index");
                Ok(Candidates::any())
            }
            Err(error) => {
                tracing::warn!(segment = self.base(), %error, "rebuilding a key index");
                *builds -= 1;
                let mut known = lock(&self.kix);
                let (kix, bytes) = self.build(kix.info().nonce)?;
                *known = Some(kix);
                let places = kix.places(&bytes, hash).expect("just made");
                Ok(Candidates {
                    places,
                    covered: kix.info().covered,
                })
            }
        }
    }

    fn look_up(&self, kix: &Kix, hash: u64) -> Result<Vec<u32>, KixError> {
        let load = || {
            let file = self.file()?;
            kix.filter(&file.as_ref())
        };
        let filters = &self.shelf.filters;
        let filter =
            filters.get_or_load(self.base(), kix.info().nonce, kix.filter_bytes(), load)?;
        match filter {
            Some(blocks) if !kix.may_hold(&blocks, hash) => Ok(Vec::new()),
            _ => lookup_rows(&self.file()?, kix, hash),
        }
    }
}

fn lookup_rows(file: &Arc<dyn VfsFile>, kix: &Kix, hash: u64) -> Result<Vec<u32>, KixError> {
    kix.places(&file.as_ref(), hash)
}
