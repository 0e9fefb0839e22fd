//! `tidegate store dump`: a JSON object per line, whatever the output format.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidegate_model::compress::raw_bodies;
use tidegate_model::{Codec, Section};
use tidegate_server::check::{DeltaRow, Dumped, FileDump, IndexRow, PartDump};
use tidegate_server::{Kind, LogPosition, PartRef, StoredBatch, open_offline};

use crate::app::App;
use crate::failure::Result;
use crate::{line, units};

/// Print what the log, or one file, holds: a JSON object per line
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data folder, as given to `tidegate serve --data`
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// One segment, index, manifest or part, named as `tidegate store verify -o wide` does
    #[arg(value_name = "FILE")]
    file: Option<String>,
    /// Begin at the first batch at or behind this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    from: u64,
    /// Print at most so many lines
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Batches of this shard only
    #[arg(long, value_name = "ID")]
    shard: Option<u32>,
    /// Batches of this queue only
    #[arg(long, value_name = "ID")]
    queue: Option<u64>,
    /// Print what the batches hold, too
    #[arg(long)]
    bodies: bool,
}

pub(super) fn run(app: &mut App, args: &Args) -> Result<()> {
    let offline = open_offline(&args.folder)?;
    let mut lines = Lines {
        app,
        left: args.count.unwrap_or(u64::MAX),
    };
    let batches = match &args.file {
        None => offline.batches(LogPosition(args.from))?,
        Some(name) => match offline.file(name)? {
            FileDump::Segment(header) => {
                lines.print(&json!({
                    "kind": "segment",
                    "base": header.base.0,
                    "size": header.size,
                    "nonce": format!("{:016x}", header.nonce),
                    "created": units::show_instant(header.created),
                    "class": header.class,
                }))?;
                offline.batches_of(header.base)?
            }
            other => return file(&mut lines, args, &other),
        },
    };
    let only = args.shard.is_some() || args.queue.is_some();
    for dumped in batches {
        if lines.left == 0 {
            break;
        }
        match dumped? {
            Dumped::Bad { from, to } if !only => {
                lines.print(&json!({ "kind": "none", "from": from.0, "to": to.0 }))?;
            }
            Dumped::Batch(stored)
                if args.wants(&stored) && stored.header.position.0 >= args.from =>
            {
                lines.print(&batch(&stored, args.bodies))?;
            }
            _ => {}
        }
    }
    Ok(())
}

impl Args {
    fn wants(&self, batch: &StoredBatch) -> bool {
        let header = &batch.header;
        let local = header.kind.is_local();
        self.shard.is_none_or(|id| header.shard.0 == id && !local)
            && self.queue.is_none_or(|id| header.queue.0 == id && !local)
    }

    fn wants_row(&self, row: &IndexRow) -> bool {
        self.shard.is_none_or(|id| row.entry.shard.0 == id)
            && self.queue.is_none_or(|id| row.queue.0 == id)
    }
}

struct Lines<'a> {
    app: &'a mut App,
    left: u64,
}

impl Lines<'_> {
    fn print(&mut self, value: &Value) -> Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        self.app.out.json_line(&value.to_string())
    }
}

fn file(lines: &mut Lines<'_>, args: &Args, dump: &FileDump) -> Result<()> {
    match dump {
        // Its batches follow its header, elsewhere.
        FileDump::Segment(_) => Ok(()),
        FileDump::QueueIndex { base, rows } => {
            lines.print(&json!({ "kind": "index", "segment": base.0, "entries": rows.len() }))?;
            print_rows(lines, args, rows)
        }
        FileDump::KeyIndex(info, rows) => lines.print(&json!({
            "kind": "key-index",
            "segment": info.base,
            "nonce": format!("{:016x}", info.nonce),
            "batches_covered": info.covered,
            "batches_unreadable": info.unreadable,
            "rows": rows,
        })),
        FileDump::Manifest(manifest) => {
            let shards = manifest.shards.iter().map(|shard| {
                json!({
                    "shard": shard.shard.0,
                    "term": shard.term.0,
                    "seq": shard.seq.0,
                    "state": part(shard.state),
                })
            });
            lines.print(&json!({
                "kind": "manifest",
                "generation": manifest.generation,
                "position": manifest.position.0,
                "log_epoch": manifest.log_epoch,
                "newest_segment": manifest.newest_segment.0,
                "table": part(manifest.table),
                "shards": shards.collect::<Vec<_>>(),
                "deltas": manifest.deltas.iter().map(|p| part(*p)).collect::<Vec<_>>(),
            }))
        }
        FileDump::Part(PartDump::Delta(rows)) => {
            lines.print(&json!({ "kind": "delta", "entries": rows.len() }))?;
            for row in rows {
                match row {
                    DeltaRow::Batch(row) => print_rows(lines, args, std::slice::from_ref(row))?,
                    DeltaRow::Trim {
                        queue,
                        start,
                        bytes,
                    } => lines.print(&json!({
                        "kind": "trim", "queue": queue.0, "start": start.0, "bytes": bytes,
                    }))?,
                }
            }
            Ok(())
        }
        FileDump::Part(PartDump::State { shard, bytes }) => lines.print(&json!({
            "kind": "state",
            "shard": shard.map(|shard| shard.0),
            "bytes": bytes,
        })),
        FileDump::Part(PartDump::Table { queues, segments }) => {
            for (id, start, next) in queues {
                if args.queue.is_none_or(|queue| queue == id.0) {
                    lines.print(&json!({
                        "kind": "queue", "queue": id.0, "start": start, "next": next,
                    }))?;
                }
            }
            for segment in segments {
                let seqs = segment.shards.iter().map(|(shard, first, last)| {
                    json!({ "shard": shard.0, "first_seq": first, "last_seq": last })
                });
                lines.print(&json!({
                    "kind": "segment", "base": segment.base.0, "shards": seqs.collect::<Vec<_>>(),
                }))?;
            }
            Ok(())
        }
    }
}

fn print_rows(lines: &mut Lines<'_>, args: &Args, rows: &[IndexRow]) -> Result<()> {
    for row in rows.iter().filter(|row| args.wants_row(row)) {
        let entry = &row.entry;
        lines.print(&json!({
            "kind": "entry",
            "queue": row.queue.0,
            "base_offset": entry.base_offset.0,
            "span": entry.span,
            "count": entry.count,
            "shard": entry.shard.0,
            "seq": entry.seq.0,
            "position": entry.position.0,
            "section_len": entry.section_len,
            "tag_bits": format!("{:016x}", entry.tag_bits),
            "append_time": units::show_instant(entry.append_time),
        }))?;
    }
    Ok(())
}

fn part(part: PartRef) -> Value {
    if part.file == 0 {
        return Value::Null;
    }
    json!({ "file": part.file, "len": part.len, "crc": format!("{:08x}", part.crc) })
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Data => "data",
        Kind::Outcome => "outcome",
        Kind::Refs => "refs",
        Kind::Group => "group",
        Kind::Catalog => "catalog",
        Kind::Producer => "producer",
        Kind::Trim => "trim",
        Kind::Pad => "pad",
        Kind::DurableMark => "durable-mark",
        Kind::Open => "open",
    }
}

fn batch(batch: &StoredBatch, bodies: bool) -> Value {
    let header = &batch.header;
    let mut value = json!({
        "kind": kind(header.kind),
        "position": header.position.0,
        "durable_mark": header.durable_mark.0,
        "log_epoch": header.log_epoch,
    });
    let fields = value.as_object_mut().expect("made as one");
    let mut put = |name: &str, field: Value| drop(fields.insert(name.to_owned(), field));
    put("section_len", header.section_len.into());
    if header.kind.is_local() {
        return value;
    }
    put("shard", header.shard.0.into());
    put("seq", header.seq.0.into());
    put("term", header.term.0.into());
    put("flags", header.flags.into());
    put(
        "append_time",
        units::show_instant(header.append_time).into(),
    );
    if header.queue.0 != 0 {
        put("queue", header.queue.0.into());
        put("base_offset", header.base_offset.0.into());
        put("span", header.span.into());
        put("count", header.count.into());
        put("tag_bits", format!("{:016x}", header.tag_bits).into());
    }
    if header.producer.0 != 0 {
        put("producer", format!("{:016x}", header.producer.0).into());
        put("producer_epoch", header.producer_epoch.0.into());
        put("sequence", header.sequence.0.into());
    }
    put("section_crc", format!("{:08x}", header.section_crc).into());
    if bodies {
        match messages(batch) {
            Some(messages) => put("messages", messages),
            None => put("section_base64", STANDARD.encode(&batch.section).into()),
        }
    }
    value
}

/// The messages of a data batch; `None` if it is something else, or not what this version reads.
fn messages(batch: &StoredBatch) -> Option<Value> {
    let header = &batch.header;
    if header.kind != Kind::Data {
        return None;
    }
    let codec = Codec::from_byte(header.codec).ok()?;
    let (count, span) = (usize::from(header.count), u32::from(header.span));
    let section = Section::parse(&batch.section, count, span, codec).ok()?;
    let raw = raw_bodies(&section, codec).ok()?;
    let section = section.with_bodies(&raw).ok()?;
    let messages = section.records().map(|record| {
        let mut value = json!({ "offset": header.base_offset.0 + u64::from(record.delta()) });
        let message = line::value(&record.to_message());
        if let (Some(out), Some(fields)) = (value.as_object_mut(), message.as_object()) {
            out.extend(fields.clone());
        }
        value
    });
    Some(messages.collect())
}
