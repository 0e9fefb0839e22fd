//! Reading what is to be published: a file or standard input, gzip or not, line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use flate2::bufread::MultiGzDecoder;
use tidegate_model::{Message, code};
use tokio::sync::mpsc;

use crate::failure::{Failure, Result};

/// Bytes of one line: a body of 4 MiB of which every byte is written as an escape, and its head.
const LINE_BYTES_MAX: usize = 32 * 1024 * 1024;
const BUFFER_BYTES: usize = 256 * 1024;
/// Messages handed over together; fewer if they are large.
const CHUNK_MESSAGES: usize = 256;
const CHUNK_BYTES: usize = 1024 * 1024;
/// Chunks that wait between reader and sender.
const CHUNKS_WAITING: usize = 8;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Makes a message of a line, or nothing of one that says nothing; the error is a sentence for people.
pub(crate) type Parse = Box<dyn Fn(&[u8]) -> std::result::Result<Option<Message>, String> + Send>;

/// Messages with the numbers of their lines, from 1.
pub(crate) type Chunk = Vec<(u64, Message)>;

/// Where messages come from.
pub(crate) struct Input {
    /// As errors name it.
    name: String,
    file: Box<dyn Read + Send>,
    /// Bytes in the file; unknown of a pipe.
    pub(crate) bytes: Option<u64>,
    /// Bytes read so far, before decompression.
    pub(crate) read: Arc<AtomicU64>,
}

impl Input {
    /// A file; standard input for `-` or none.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self {
                name: "standard input".to_owned(),
                file: Box::new(io::stdin()),
                bytes: None,
                read,
            });
        };
        let failed = |error: io::Error| Failure::file("read", path, &error);
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if meta.is_dir() {
            return Err(Failure::file("read", path, &"it is a folder"));
        }
        Ok(Self {
            name: path.display().to_string(),
            file: Box::new(file),
            bytes: meta.is_file().then_some(meta.len()),
            read,
        })
    }

    /// Reads and parses on a thread of its own. The first error ends the stream.
    pub(crate) fn start(self, parse: Parse) -> mpsc::Receiver<Result<Chunk>> {
        let (to, from) = mpsc::channel(CHUNKS_WAITING);
        // Reading from a terminal or pipe can't be interrupted, so nobody waits for this thread.
        thread::spawn(move || {
            if let Err(failure) = self.read_all(&parse, &to) {
                // The sender may have given up for a reason of its own.
                let _unheard = to.blocking_send(Err(failure));
            }
        });
        from
    }

    fn read_all(self, parse: &Parse, to: &mpsc::Sender<Result<Chunk>>) -> Result<()> {
        let counted = Counted {
            inner: self.file,
            read: self.read,
        };
        let name = self.name;
        let failed = |error: io::Error| unread(&name, &error);
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, counted);
        let zipped = raw.fill_buf().map_err(failed)?.starts_with(&GZIP_MAGIC);
        let plain: Box<dyn Read> = if zipped {
            Box::new(MultiGzDecoder::new(raw))
        } else {
            Box::new(raw)
        };
        let mut lines = BufReader::with_capacity(BUFFER_BYTES, plain);
        let mut number = 0;
        let mut line = Vec::new();
        let mut chunk = Chunk::new();
        let mut chunk_bytes = 0;
        loop {
            // A live pipe has its messages sent before the next line is waited for.
            let full = chunk.len() >= CHUNK_MESSAGES || chunk_bytes >= CHUNK_BYTES;
            if !chunk.is_empty() && (full || !lines.buffer().contains(&b'\n')) {
                chunk_bytes = 0;
                if to.blocking_send(Ok(std::mem::take(&mut chunk))).is_err() {
                    return Ok(());
                }
            }
            number += 1;
            match read_line(&mut lines, &mut line) {
                Err(error) => {
                    flush(&mut chunk, to);
                    return Err(if zipped {
                        bad_gzip(&name, number, &error)
                    } else {
                        failed(error)
                    });
                }
                Ok(Found::End) => break,
                Ok(Found::TooLong) => {
                    flush(&mut chunk, to);
                    let limit = LINE_BYTES_MAX / (1024 * 1024);
                    return Err(bad_line(&name, number, &format!("it is over {limit} MiB")));
                }
                Ok(Found::Line) => {}
            }
            match parse(&line) {
                Ok(None) => {}
                Ok(Some(message)) => {
                    chunk_bytes += line.len();
                    chunk.push((number, message));
                }
                Err(what) => {
                    flush(&mut chunk, to);
                    return Err(bad_line(&name, number, &what));
                }
            }
        }
        flush(&mut chunk, to);
        Ok(())
    }
}

fn flush(chunk: &mut Chunk, to: &mpsc::Sender<Result<Chunk>>) {
    if !chunk.is_empty() {
        // Nobody listens once the sender has given up.
        let _unheard = to.blocking_send(Ok(std::mem::take(chunk)));
    }
}

/// What a line looks like.
const LINE_HINT: &str =
    r#"a line reads {"body": "text"}; --format raw takes each line as a body, whatever it says"#;

fn bad_line(name: &str, number: u64, what: &str) -> Failure {
    Failure::new(
        code::INPUT,
        format!("line {number} of {name} is no message: {what}"),
    )
    .hint(LINE_HINT)
}

/// Of something that is open: whether this user may read it is no question any more.
fn unread(name: &str, error: &io::Error) -> Failure {
    Failure::file("read", name, error).hint(
        "it could be opened, but not be read to its end: check the device or program behind it",
    )
}

fn bad_gzip(name: &str, number: u64, error: &io::Error) -> Failure {
    Failure::new(
        code::INPUT,
        format!("the gzip data of {name} is damaged or cut off at line {number}"),
    )
    .because(error.to_string())
    .hint("`gzip -t` checks a file; get it anew, and publish from that line on")
}

enum Found {
    Line,
    TooLong,
    End,
}

/// Reads a line without its line feed, and no more than a line may have.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Found> {
    line.clear();
    let limit = u64::try_from(LINE_BYTES_MAX + 1).expect("a length fits 64 bits");
    from.take(limit).read_until(b'\n', line)?;
    let ended = line.pop_if(|byte| *byte == b'\n').is_some();
    Ok(match (ended, line.len()) {
        (false, 0) => Found::End,
        (_, len) if len > LINE_BYTES_MAX => Found::TooLong,
        _ => Found::Line,
    })
}

/// Counts what is read, for the progress bar.
struct Counted {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        let bytes = u64::try_from(len).expect("a length fits 64 bits");
        self.read.fetch_add(bytes, Ordering::Relaxed);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn json() -> Parse {
        Box::new(|line| {
            if line.trim_ascii().is_empty() {
                return Ok(None);
            }
            std::str::from_utf8(line)
                .map_err(|error| error.to_string())
                .and_then(line::parse)
                .map(Some)
        })
    }

    fn input(bytes: Vec<u8>) -> Input {
        Input {
            name: "week.jsonl".to_owned(),
            file: Box::new(io::Cursor::new(bytes)),
            bytes: None,
            read: Arc::default(),
        }
    }

    /// Line numbers of the messages, then the error if there is one.
    fn all(bytes: impl Into<Vec<u8>>) -> (Vec<u64>, Option<String>) {
        let mut from = input(bytes.into()).start(json());
        let mut numbers = Vec::new();
        while let Some(chunk) = from.blocking_recv() {
            match chunk {
                Ok(chunk) => numbers.extend(chunk.iter().map(|(number, _)| *number)),
                Err(Failure::Error(report)) => {
                    assert!(from.blocking_recv().is_none());
                    return (numbers, Some(report.what));
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        (numbers, None)
    }

    #[test]
    fn lines_are_messages_and_empty_ones_are_passed_over() {
        let text = "{\"body\":1}\n\n  \r\n{\"body\":2}\r\n{\"body\":3}";
        assert_eq!(all(text), (vec![1, 4, 5], None));
        assert_eq!(all(""), (vec![], None));
    }

    #[test]
    fn gzip_is_recognized_by_its_first_bytes() {
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        for _ in 0..1_000 {
            zip.write_all(b"{\"body\":\"x\"}\n").unwrap();
        }
        let zipped = zip.finish().unwrap();
        let (numbers, error) = all(zipped.clone());
        assert_eq!((numbers.len(), error), (1_000, None));
        let (_, error) = all(&zipped[..zipped.len() - 9]);
        let error = error.expect("it is cut off");
        assert!(
            error.starts_with("the gzip data of week.jsonl is damaged or cut off at line"),
            "{error}"
        );
    }

    #[test]
    fn a_bad_line_is_named_and_what_came_before_is_kept() {
        let (numbers, error) = all("{\"body\":1}\n{\"body\":2}\n{\"body\"}\n{\"body\":4}\n");
        assert_eq!(numbers, [1, 2]);
        assert_eq!(
            error.as_deref(),
            Some("line 3 of week.jsonl is no message: expected `:` (column 8)")
        );
    }

    #[test]
    fn a_line_without_end_is_cut_off() {
        let mut line = vec![b'x'; LINE_BYTES_MAX + 1];
        assert!(matches!(
            read_line(&mut line.as_slice(), &mut Vec::new()),
            Ok(Found::TooLong)
        ));
        line.pop();
        assert!(matches!(
            read_line(&mut line.as_slice(), &mut Vec::new()),
            Ok(Found::Line)
        ));
    }
}
