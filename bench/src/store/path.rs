//! What a byte costs on its way into the log, per CPU second, against copying it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::checksum::crc32c;
use tidegate_model::{Message, QueueId, SectionBuilder, ShardId, Timestamp};
use tidegate_store::{AppendError, Appender, Background, RealVfs, Store};

use super::{BODY, Load, Nothing, RECORDS, config};
use crate::cpu;
use crate::table::{Table, number, verdict};

/// Bytes of each figure in a round: what an idle store keeps of its ring, so that no figure pays for
/// new memory.
const ROUND_BYTES: usize = 6 << 20;
const ROUNDS: usize = 40;
/// Bytes of a write by hand: those of the store's largest.
const WRITE_BYTES: usize = 1 << 20;

pub(super) fn measure(folder: &Path, time: Duration) -> anyhow::Result<Table> {
    let folder = tempfile::tempdir_in(folder)?;
    let (mut store, background) = Store::open_manual(
        Arc::new(RealVfs),
        folder.path(),
        config(),
        Timestamp(1),
        &mut Nothing,
    )?;
    background.run_all();
    let load = Load::new(RECORDS)?;
    let messages: Vec<Message> = (0..RECORDS)
        .map(|_| Message::new(vec![b'x'; BODY]))
        .collect();
    let (source, mut area) = (vec![7u8; 256 * BODY], vec![1u8; ROUND_BYTES]);
    let mut figures = [const { Vec::new() }; 5];
    let bare = prepared(folder.path())?;
    let rounds = ROUNDS * usize::try_from(time.as_secs())?.clamp(1, 4);
    for _ in 0..rounds {
        figures[0].push(copy(&source, &mut area)?);
        figures[1].push(append(&mut store.appender, &load, || Ok(()))?);
        drain(&background, &mut store.appender)?;
        figures[2].push(append(&mut store.appender, &load, || {
            let mut builder = SectionBuilder::new();
            for message in &messages {
                builder.push(message)?;
            }
            std::hint::black_box(builder.finish()?);
            Ok(())
        })?);
        drain(&background, &mut store.appender)?;
        let appended = append(&mut store.appender, &load, || Ok(()))?;
        let flushed = cpu::per_item(|| {
            while background.flush() {}
            Ok(ROUND_BYTES as u64)
        })?;
        figures[3].push(appended + flushed);
        drain(&background, &mut store.appender)?;
        figures[4].push(cpu::per_item(|| {
            for (at, piece) in area.chunks_exact(WRITE_BYTES).enumerate() {
                bare.write_all_at(piece, (at * WRITE_BYTES) as u64)?;
            }
            bare.sync_data()?;
            Ok(ROUND_BYTES as u64)
        })?);
    }
    let [copied, ring, encoded, whole, written] = figures.map(cpu::median);
    let mut table = Table::new(
        "The write path, 1 KiB messages in batches of 16, per second of CPU time",
        &["path", "GB", "part of memcpy", "target", ""],
    );
    for (what, ns, least) in [
        ("1 KiB memcpy (limit)", copied, None),
        ("CRC, header, ring copy", ring, Some(0.6)),
        (
            "the same with the client's encoding of the section",
            encoded,
            None,
        ),
        (
            "bare pwrite of 1 MiB and fdatasync (limit of the next)",
            written,
            None,
        ),
        (
            "CRC, header, ring copy, pwrite and fdatasync",
            whole,
            Some(0.5),
        ),
    ] {
        let part = copied / ns;
        table.row(vec![
            what.to_owned(),
            number(1.0 / ns),
            format!("{} %", number(part * 100.0)),
            least.map_or(String::new(), |least| {
                format!(">= {} %", number(least * 100.0))
            }),
            least.map_or(String::new(), |least| verdict(part >= least)),
        ]);
    }
    Ok(table)
}

/// A file whose blocks were written before.
fn prepared(folder: &Path) -> anyhow::Result<File> {
    let file = File::create(folder.join("bare"))?;
    for at in (0..ROUND_BYTES).step_by(WRITE_BYTES) {
        file.write_all_at(&vec![0; WRITE_BYTES], at as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// CPU ns per byte of copies of 1 KiB each.
fn copy(source: &[u8], area: &mut [u8]) -> anyhow::Result<f64> {
    cpu::per_item(|| {
        let sources = source.chunks_exact(BODY).cycle();
        for (to, from) in area.chunks_exact_mut(BODY).zip(sources) {
            to.copy_from_slice(from);
        }
        std::hint::black_box(&area);
        Ok(ROUND_BYTES as u64)
    })
}

/// CPU ns per byte of verified and appended batches.
fn append(
    appender: &mut Appender,
    load: &Load,
    mut first: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    cpu::per_item(|| {
        let mut bytes = 0;
        while bytes < ROUND_BYTES {
            first()?;
            anyhow::ensure!(crc32c(&load.section) == load.crc);
            appender.append(&[load.batch(ShardId(0), QueueId(1))])?;
            bytes += load.section.len();
        }
        Ok(bytes as u64)
    })
}

/// Empties the ring, and has a next segment ready.
fn drain(background: &Background, appender: &mut Appender) -> anyhow::Result<()> {
    background.run_all();
    appender.settle()?;
    appender.checkpoint(Timestamp(1), Vec::new());
    background.run_all();
    // A segment's end in the middle of a figure would cost a failed append there.
    loop {
        let tail = appender.tail().0;
        let room = config().segment_bytes - tail % config().segment_bytes;
        if room > 2 * ROUND_BYTES as u64 {
            return Ok(());
        }
        match appender.append(&[Load::of(1, 1 << 20)?.batch(ShardId(0), QueueId(1))]) {
            Ok(_) | Err(AppendError::Full) => background.run_all(),
            Err(error) => return Err(error.into()),
        }
        appender.settle()?;
    }
}
