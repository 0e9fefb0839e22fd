//! Read-only maps of segment files: the store's only unsafe code.
#![expect(unsafe_code, reason = "a file can't be mapped in safe Rust")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};

use super::VfsMap;

pub(super) struct FileMap {
    map: Arc<Mmap>,
    bytes: Bytes,
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FileMap {
    pub(super) fn new(file: &File, len: usize) -> io::Result<Self> {
        if file.metadata()?.len() < len as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the data folder is locked, so no other process of ours changes the file, and the
        // store never shortens a mapped one (it unlinks it). Bytes are handed out only below the
        // durable position, where nothing is ever written again.
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        let map = Arc::new(map);
        let bytes = Bytes::from_owner(Owner(map.clone()));
        Ok(Self { map, bytes })
    }
}

impl VfsMap for FileMap {
    fn populate(&self, range: Range<usize>) -> io::Result<()> {
        self.map
            .advise_range(Advice::PopulateRead, range.start, range.len())
    }

    fn bytes(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn later_writes_show_and_the_bytes_outlive_map_and_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 16).unwrap();
        let map = FileMap::new(&file, 1 << 16).unwrap();
        file.write_all_at(b"tide", 5000).unwrap();
        map.populate(4096..8192).unwrap();
        let bytes = map.bytes(5000..5004);
        drop((map, file));
        assert_eq!(bytes, "tide");
    }

    #[test]
    fn populating_past_the_end_is_an_error_and_no_signal() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 16).unwrap();
        let map = FileMap::new(&file, 1 << 16).unwrap();
        file.set_len(4096).unwrap();
        assert!(map.populate(8192..12288).is_err());
    }

    #[test]
    fn a_file_that_is_too_short_is_not_mapped() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(FileMap::new(&file, 8192).is_err());
    }
}
