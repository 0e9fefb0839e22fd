//! A simulated machine's files, as handles and maps.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::PoisonError;

use bytes::Bytes;

use super::names::FileId;
use super::{Op, SimVfs, State, power_is_off};
use crate::vfs::{VfsFile, VfsMap};

#[derive(Clone)]
pub(super) struct SimFile {
    pub(super) vfs: SimVfs,
    pub(super) path: PathBuf,
    pub(super) id: FileId,
}

impl SimFile {
    fn check_readable(&self, state: &mut State, range: &Range<u64>) -> io::Result<()> {
        if state.strikes(Op::Read) {
            return Err(super::eio());
        }
        if state.read_errors.is_empty() {
            return Ok(());
        }
        let name = self.name(state);
        let bad = |(path, bad): &(PathBuf, Range<u64>)| {
            *path == name && bad.start < range.end && range.start < bad.end
        };
        if state.read_errors.iter().any(bad) {
            return Err(super::eio());
        }
        Ok(())
    }

    /// Its name today, which may not be the one that it was opened by.
    fn name(&self, state: &State) -> PathBuf {
        let name = state.disk.names.name_of(self.id);
        name.map_or_else(|| self.path.clone(), |path| path.to_path_buf())
    }
}

impl VfsFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.vfs
            .read(|state| Ok(state.disk.contents(self.id)?.len() as u64))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.vfs.read(|state| {
            self.check_readable(state, &(offset..offset + buf.len() as u64))?;
            let at = usize::try_from(offset).map_err(io::Error::other)?;
            if state.disk.contents(self.id)?.read(buf, at) {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.vfs.change(|state| {
            if state.strikes(Op::Write) {
                // A part of it may have come through.
                let part = state.random.below(bytes.len() as u64 + 1);
                let part = usize::try_from(part).expect("at most its length");
                state.disk.write(self.id, &bytes[..part], offset)?;
                return Err(super::eio());
            }
            state.disk.write(self.id, bytes, offset)
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.vfs.change(|state| {
            if state.strikes(Op::Allocate) {
                return Err(super::eio());
            }
            state.disk.grow(self.id, len)
        })
    }

    fn sync(&self) -> io::Result<()> {
        let machine = &self.vfs.machine;
        let mut state = machine.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before_sync = state.before_sync.clone();
        state.syncs_waiting += 1;
        while state.hold_syncs && state.alive {
            state = machine
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.syncs_waiting -= 1;
        drop(state);
        if let Some(before_sync) = before_sync {
            before_sync();
        }
        self.vfs.change(|state| {
            if state.strikes(Op::Sync) {
                let mut coin = state.random;
                state.random.next();
                state.disk.contents_mut(self.id)?.fail_sync(&mut coin);
                return Err(super::eio());
            }
            if state.ignores_syncs.is_some() || state.syncs_left.is_some() {
                let name = self.name(state).to_string_lossy().into_owned();
                if let Some((suffix, left)) = &mut state.syncs_left
                    && name.ends_with(*suffix)
                {
                    if *left == 0 {
                        state.alive = false;
                        machine.changed.notify_all();
                        return Err(power_is_off());
                    }
                    *left -= 1;
                }
                if state
                    .ignores_syncs
                    .is_some_and(|suffix| name.ends_with(suffix))
                {
                    return Ok(());
                }
            }
            state.disk.contents_mut(self.id)?.sync();
            Ok(())
        })
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.vfs.read(|state| {
            state.disk.contents_mut(self.id)?.drop_cache();
            Ok(())
        })
    }

    fn map(&self, len: usize) -> io::Result<Box<dyn VfsMap>> {
        self.vfs.read(|state| {
            if state.disk.contents(self.id)?.len() < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Box::new(SimMap {
                file: self.clone(),
                len,
            }) as Box<dyn VfsMap>)
        })
    }
}

struct SimMap {
    file: SimFile,
    len: usize,
}

impl VfsMap for SimMap {
    fn populate(&self, range: Range<usize>) -> io::Result<()> {
        self.file.vfs.read(|state| {
            self.file
                .check_readable(state, &(range.start as u64..range.end as u64))
        })
    }

    fn bytes(&self, range: Range<usize>) -> Bytes {
        assert!(range.end <= self.len, "within the map");
        let mut bytes = vec![0; range.len()];
        self.file.vfs.with(|state| {
            // A file that is gone with its machine shows zeroes, as no process is left to see.
            if let Ok(contents) = state.disk.contents(self.file.id) {
                contents.read(&mut bytes, range.start);
            }
        });
        bytes.into()
    }
}

pub(super) fn shared(vfs: &SimVfs, path: PathBuf, id: FileId) -> Arc<dyn VfsFile> {
    Arc::new(SimFile {
        vfs: vfs.clone(),
        path,
        id,
    })
}
