//! Read-only maps of segment and index files.
#![expect(unsafe_code, reason = "a file can't be mapped in safe Rust")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};

use super::VfsMap;
use super::lost::Guarded;

pub(super) struct FileMap {
    map: Arc<GuardedMap>,
    bytes: Bytes,
}

/// Fields go in this order: nobody may touch the map when it is no longer guarded.
struct GuardedMap {
    guard: Guarded,
    map: Mmap,
}

struct Owner(Arc<GuardedMap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.map
    }
}

impl FileMap {
    pub(super) fn new(file: &File, len: usize) -> io::Result<Self> {
        if file.metadata()?.len() < len as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the data folder is locked, so no other process of ours changes the file, and the
        // store never shortens a mapped one (it unlinks it). Bytes are handed out only below the
        // durable position, where nothing is ever written again; only a page that the disk lost turns
        // into zeros, which is one more state that the file's bytes may have.
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        let guard = Guarded::new(&map.as_ptr_range())?;
        let map = Arc::new(GuardedMap { guard, map });
        let bytes = Bytes::from_owner(Owner(map.clone()));
        Ok(Self { map, bytes })
    }
}

impl VfsMap for FileMap {
    fn populate(&self, range: Range<usize>) -> io::Result<()> {
        self.map
            .map
            .advise_range(Advice::PopulateRead, range.start, range.len())
    }

    fn is_whole(&self) -> bool {
        !self.map.guard.has_lost()
    }

    fn bytes(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::os::unix::process::ExitStatusExt;

    use super::super::lost::broken_maps;
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
    fn a_page_that_is_lost_reads_as_zeros_and_the_map_says_so() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 1 << 16], 0).unwrap();
        let maps: Vec<_> = (0..1000)
            .map(|_| FileMap::new(&file, 1 << 16).unwrap())
            .collect();
        let (other, map) = (&maps[1], &maps[999]);
        map.populate(0..1 << 16).unwrap();
        let bytes = map.bytes(0..1 << 16);
        assert!(bytes.iter().all(|byte| *byte == 7));
        let before = broken_maps();
        file.set_len(8192).unwrap();
        assert!(map.is_whole());
        assert!(bytes[..8192].iter().all(|byte| *byte == 7));
        assert!(bytes[8192..].iter().all(|byte| *byte == 0));
        assert!(!map.is_whole());
        assert!(other.is_whole());
        assert!(broken_maps() > before);
        // A place that is used again begins whole.
        drop((bytes, maps));
        assert!(FileMap::new(&file, 8192).unwrap().is_whole());
    }

    /// What a child does that must not survive it.
    const FATE: &str = "TIDEGATE_TEST_BUS_ERROR";

    #[test]
    fn a_bus_error_elsewhere_ends_the_process() {
        let name = "vfs::mmap::tests::a_bus_error_elsewhere_ends_the_process";
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        match std::env::var(FATE).as_deref() {
            Ok("touched") => {
                // SAFETY: nobody else has the file, and nothing is made of its bytes.
                let foreign = unsafe { MmapOptions::new().map(&file).unwrap() };
                let _guarded = FileMap::new(&file, 8192).unwrap();
                file.set_len(0).unwrap();
                panic!("read {}", std::hint::black_box(&foreign[..])[5000]);
            }
            Ok("sent") => {
                let _guarded = FileMap::new(&file, 8192).unwrap();
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::BUS).unwrap();
                panic!("it was sent");
            }
            _ => {}
        }
        for fate in ["touched", "sent"] {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(FATE, fate)
                .output()
                .unwrap();
            assert_eq!(child.status.signal(), Some(libc::SIGBUS), "{child:?}");
        }
    }

    #[test]
    fn a_file_that_is_too_short_is_not_mapped() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(FileMap::new(&file, 8192).is_err());
    }
}
