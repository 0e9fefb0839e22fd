//! The two tasks of a stream.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tidegate_model::{Code, code};
use tidegate_wire::{CONTROL, StreamId, Transmit};

use crate::pump::Pump;
use crate::session::Session;
use crate::signals::Signals;

/// Chunks taken from quinn at once: about a packet each.
const CHUNKS: usize = 32;

/// A code as QUIC carries it. Codes above 16 bits aren't ours and read as `internal`.
pub(crate) fn from_quic(code: VarInt) -> Code {
    u16::try_from(code.into_inner()).map_or(code::INTERNAL, Code)
}

/// Takes bytes in for as long as the session wants them.
pub(crate) async fn read<S: Session>(
    pump: Pump<S>,
    id: StreamId,
    mut stream: RecvStream,
    signals: Arc<Signals>,
) {
    let mut chunks: [Bytes; CHUNKS] = core::array::from_fn(|_| Bytes::new());
    loop {
        if let Some(code) = signals.stop_ordered() {
            // An error says that the stream is over already.
            let _ = stream.stop(VarInt::from_u32(code));
            break;
        }
        if !pump.with(|session| session.wants_data(id)) {
            if signals.is_gone() {
                break;
            }
            signals.read.notified().await;
            continue;
        }
        tokio::select! {
            taken = stream.read_chunks(&mut chunks) => match taken {
                Ok(Some(count)) => pump.with_now(|session, now| {
                    for chunk in &mut chunks[..count] {
                        session.handle_data(now, id, std::mem::take(chunk));
                    }
                }),
                Ok(None) => {
                    if id != CONTROL || pump.is_left_open().await {
                        pump.with_now(|session, now| session.handle_finished(now, id));
                    }
                    break;
                }
                Err(ReadError::Reset(code)) => {
                    pump.with_now(|session, now| session.handle_reset(now, id, from_quic(code)));
                    break;
                }
                Err(_) => break,
            },
            () = signals.read.notified() => {}
        }
    }
    pump.side_done(id, &signals);
}

/// Sends what the session has, as fast as quinn takes it.
pub(crate) async fn write<S: Session>(
    pump: Pump<S>,
    id: StreamId,
    mut stream: SendStream,
    signals: Arc<Signals>,
) {
    let mut stopped = pin!(stream.stopped());
    loop {
        if signals.is_gone() {
            break;
        }
        if let Some(code) = signals.reset_ordered() {
            // An error says that the stream is over already.
            let _ = stream.reset(VarInt::from_u32(code));
            break;
        }
        let (piece, closing) = pump.transmit(id);
        let finish = match piece {
            Some(Transmit::Data(chunk)) => match write_chunk(&mut stream, chunk, &signals).await {
                Written::All | Written::Interrupted => false,
                Written::Stopped(code) => {
                    pump.with_now(|session, now| session.handle_stopped(now, id, code));
                    break;
                }
                Written::Lost => break,
            },
            Some(Transmit::Finish) => true,
            None if closing => true,
            None => {
                tokio::select! {
                    () = signals.write.notified() => {}
                    reason = &mut stopped => {
                        if let Ok(Some(code)) = reason {
                            let code = from_quic(code);
                            pump.with_now(|session, now| session.handle_stopped(now, id, code));
                        }
                        break;
                    }
                }
                false
            }
        };
        if finish {
            // An error says that the stream is over already.
            let _ = stream.finish();
            tokio::select! {
                _ = &mut stopped => {}
                () = until_gone(&signals) => {}
            }
            break;
        }
    }
    pump.side_done(id, &signals);
}

enum Written {
    All,
    /// The session wants the stream reset, or the connection is over.
    Interrupted,
    Stopped(Code),
    Lost,
}

async fn write_chunk(stream: &mut SendStream, chunk: Bytes, signals: &Signals) -> Written {
    let mut write = pin!(stream.write_chunk(chunk));
    loop {
        tokio::select! {
            written = &mut write => return match written {
                Ok(()) => Written::All,
                Err(WriteError::Stopped(code)) => Written::Stopped(from_quic(code)),
                Err(_) => Written::Lost,
            },
            () = signals.write.notified() => {
                if signals.is_gone() || signals.reset_ordered().is_some() {
                    return Written::Interrupted;
                }
            }
        }
    }
}

async fn until_gone(signals: &Signals) {
    while !signals.is_gone() {
        signals.write.notified().await;
    }
}
