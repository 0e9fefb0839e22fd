//! What both sessions need of streams: frames in, bytes out, deadlines, and one way to end it all.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::{Code, code};

use crate::frame::{Frame, FrameDecoder};
use crate::limits::{FIRST_FRAME_TIME_MAX, PROGRESS_BYTES_MIN, PROGRESS_TIME_MAX};
use crate::output::OutBuffer;
use crate::refusal::WireError;
use crate::stream::{Output, StreamId, Transmit};

/// The streams of a connection; `R` is what a session knows of one.
#[derive(Debug)]
pub(crate) struct Link<R> {
    by_server: bool,
    streams: HashMap<StreamId, Channel<R>>,
    outputs: VecDeque<Output>,
    /// Streams opened so far: two ways, one way.
    opened: [u64; 2],
    /// Bytes waiting to be sent on all streams.
    queued: usize,
    /// Bytes of frames whose end has not come, on all streams.
    partial: usize,
    now: Duration,
    sweep_at: Option<Duration>,
    closed: bool,
}

#[derive(Debug)]
struct Channel<R> {
    role: R,
    decoder: FrameDecoder,
    /// Bytes in the decoder that are counted.
    partial: usize,
    out: OutBuffer,
    /// The peer may still send, and we listen.
    receiving: bool,
    /// The peer has sent its last byte.
    fin: bool,
    sending: Sending,
    /// A driver was told to transmit.
    told: bool,
    paused: bool,
    watch: Option<Watch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Open,
    /// The end is to be sent after what waits.
    Ending,
    Done,
}

/// A frame in the making, or a stream without one.
#[derive(Clone, Copy, Debug)]
struct Watch {
    deadline: Duration,
    /// Bytes that came since the deadline was set.
    progress: u64,
    first: bool,
}

impl<R> Link<R> {
    pub(crate) fn new(by_server: bool, now: Duration) -> Self {
        Self {
            by_server,
            streams: HashMap::new(),
            outputs: VecDeque::new(),
            opened: [0; 2],
            queued: 0,
            partial: 0,
            now,
            sweep_at: None,
            closed: false,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Takes note of the time, which never goes back.
    pub(crate) fn set_now(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Opens a stream of our own.
    pub(crate) fn open(&mut self, uni: bool, priority: i32, role: R) -> StreamId {
        let count = &mut self.opened[usize::from(uni)];
        let stream = StreamId::new(self.by_server, uni, *count);
        *count += 1;
        let mut channel = Channel::new(role);
        channel.receiving = !uni;
        self.streams.insert(stream, channel);
        self.outputs.push_back(Output::Open { stream, priority });
        stream
    }

    /// Takes in a stream that the peer opened; its first frame is awaited from now on.
    pub(crate) fn accept(&mut self, stream: StreamId, role: R) {
        let mut channel = Channel::new(role);
        if stream.is_uni() {
            channel.sending = Sending::Done;
        }
        let deadline = self.now + FIRST_FRAME_TIME_MAX;
        channel.watch = Some(Watch {
            deadline,
            progress: 0,
            first: true,
        });
        self.streams.insert(stream, channel);
        self.sweep_by(deadline);
    }

    /// Whether the peer may open a stream of this number, and hasn't.
    pub(crate) fn is_new_from_peer(&self, stream: StreamId) -> bool {
        stream.by_server() != self.by_server && !self.streams.contains_key(&stream)
    }

    pub(crate) fn role(&self, stream: StreamId) -> Option<&R> {
        self.streams.get(&stream).map(|channel| &channel.role)
    }

    pub(crate) fn role_mut(&mut self, stream: StreamId) -> Option<&mut R> {
        self.streams
            .get_mut(&stream)
            .map(|channel| &mut channel.role)
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = (StreamId, &R)> {
        self.streams
            .iter()
            .map(|(stream, channel)| (*stream, &channel.role))
    }

    /// Bytes waiting to be sent on a stream.
    pub(crate) fn output_len(&self, stream: StreamId) -> usize {
        self.streams.get(&stream).map_or(0, |c| c.out.len())
    }

    /// Bytes waiting to be sent on all streams.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes of frames whose end has not come, on all streams.
    pub(crate) fn partial(&self) -> usize {
        self.partial
    }

    fn count_partial(partial: &mut usize, channel: &mut Channel<R>) {
        let len = channel.decoder.partial_len();
        *partial = *partial + len - channel.partial;
        channel.partial = len;
    }

    /// Takes in bytes; false if nobody listens on that stream.
    pub(crate) fn push(&mut self, stream: StreamId, chunk: Bytes) -> bool {
        let now = self.now;
        let Some(channel) = self.streams.get_mut(&stream) else {
            return false;
        };
        if self.closed || !channel.receiving || channel.fin || chunk.is_empty() {
            return false;
        }
        let len = chunk.len() as u64;
        channel.decoder.push(chunk);
        Self::count_partial(&mut self.partial, channel);
        match &mut channel.watch {
            Some(watch) => watch.progress += len,
            None => {
                let deadline = now + PROGRESS_TIME_MAX;
                channel.watch = Some(Watch {
                    deadline,
                    progress: 0,
                    first: false,
                });
                self.sweep_by(deadline);
            }
        }
        true
    }

    /// Notes that the peer has sent its last byte on a stream.
    pub(crate) fn push_fin(&mut self, stream: StreamId) -> bool {
        match self.streams.get_mut(&stream) {
            Some(channel) if channel.receiving && !channel.fin => {
                channel.fin = true;
                true
            }
            _ => false,
        }
    }

    /// The next frame of a stream.
    pub(crate) fn next_frame(&mut self, stream: StreamId) -> Result<Option<Frame>, WireError> {
        if self.closed {
            return Ok(None);
        }
        let Some(channel) = self.streams.get_mut(&stream).filter(|c| c.receiving) else {
            return Ok(None);
        };
        let next = channel.decoder.next_frame();
        Self::count_partial(&mut self.partial, channel);
        match next? {
            Some(frame) => {
                channel.watch = None;
                Ok(Some(frame))
            }
            None => {
                if channel.decoder.partial_len() == 0 {
                    if channel.watch.is_some_and(|watch| !watch.first) {
                        channel.watch = None;
                    }
                } else if channel.watch.is_none() {
                    let deadline = self.now + PROGRESS_TIME_MAX;
                    channel.watch = Some(Watch {
                        deadline,
                        progress: 0,
                        first: false,
                    });
                    self.sweep_by(deadline);
                }
                Ok(None)
            }
        }
    }

    /// Whether all frames were read and the peer sends nothing more; true once. The caller
    /// [retires](Self::retire) the stream when it has dealt with it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if it ended within a frame.
    pub(crate) fn take_end(&mut self, stream: StreamId) -> Result<bool, WireError> {
        let Some(channel) = self.streams.get_mut(&stream) else {
            return Ok(false);
        };
        if !channel.fin || !channel.receiving {
            return Ok(false);
        }
        channel.receiving = false;
        channel.watch = None;
        let missing = channel.decoder.missing_len();
        if missing > 0 {
            return Err(WireError::Truncated { missing });
        }
        Ok(true)
    }

    /// Whether a driver should read on.
    pub(crate) fn wants_data(&self, stream: StreamId) -> bool {
        !self.closed
            && self
                .streams
                .get(&stream)
                .is_some_and(|c| c.receiving && !c.fin && !c.paused)
    }

    /// Whether a stream was held back when it was last looked at.
    pub(crate) fn is_paused(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|c| c.paused)
    }

    /// Streams that were held back when they were last looked at.
    pub(crate) fn paused(&self) -> BTreeSet<StreamId> {
        self.streams
            .iter()
            .filter(|(_, channel)| channel.paused)
            .map(|(stream, _)| *stream)
            .collect()
    }

    /// Stops or resumes reading of a stream.
    pub(crate) fn set_paused(&mut self, stream: StreamId, paused: bool) {
        if let Some(channel) = self.streams.get_mut(&stream)
            && channel.paused != paused
        {
            channel.paused = paused;
            if !paused && channel.receiving && !channel.fin {
                self.outputs.push_back(Output::Readable(stream));
            }
        }
    }

    /// Queues a small frame.
    pub(crate) fn send(&mut self, stream: StreamId, frame: &[u8]) {
        self.send_with(stream, frame, Bytes::new());
    }

    /// Queues a header and the payload that follows it.
    pub(crate) fn send_with(&mut self, stream: StreamId, header: &[u8], payload: Bytes) {
        if self.closed {
            return;
        }
        let Some(channel) = self.streams.get_mut(&stream) else {
            return;
        };
        if channel.sending != Sending::Open {
            return;
        }
        self.queued += header.len() + payload.len();
        channel.out.put(header);
        channel.out.put_bytes(payload);
        Self::tell(&mut self.outputs, stream, channel);
    }

    /// Ends the sending side after what is queued.
    pub(crate) fn finish(&mut self, stream: StreamId) {
        if let Some(channel) = self.streams.get_mut(&stream)
            && channel.sending == Sending::Open
        {
            channel.sending = Sending::Ending;
            Self::tell(&mut self.outputs, stream, channel);
        }
    }

    /// Abandons the sending side.
    pub(crate) fn reset(&mut self, stream: StreamId, code: Code) {
        if let Some(channel) = self.streams.get_mut(&stream)
            && channel.sending != Sending::Done
        {
            self.queued -= channel.out.len();
            channel.out.clear();
            channel.sending = Sending::Done;
            self.outputs.push_back(Output::Reset { stream, code });
            self.retire(stream);
        }
    }

    /// Stops listening; what waits unread is dropped.
    pub(crate) fn stop(&mut self, stream: StreamId, code: Code) {
        if let Some(channel) = self.streams.get_mut(&stream)
            && channel.receiving
        {
            channel.receiving = false;
            channel.watch = None;
            channel.decoder = FrameDecoder::new();
            Self::count_partial(&mut self.partial, channel);
            if !channel.fin {
                self.outputs.push_back(Output::StopSending { stream, code });
            }
            self.retire(stream);
        }
    }

    /// Both ways at once.
    pub(crate) fn abandon(&mut self, stream: StreamId, code: Code) {
        self.reset(stream, code);
        self.stop(stream, code);
    }

    /// The peer abandoned its sending side: what it sent before is dropped too.
    pub(crate) fn peer_reset(&mut self, stream: StreamId) {
        if let Some(channel) = self.streams.get_mut(&stream) {
            channel.receiving = false;
            channel.watch = None;
            channel.decoder = FrameDecoder::new();
            Self::count_partial(&mut self.partial, channel);
            self.retire(stream);
        }
    }

    /// The next piece to send on a stream.
    pub(crate) fn transmit(&mut self, stream: StreamId) -> Option<Transmit> {
        let channel = self.streams.get_mut(&stream)?;
        if let Some(chunk) = channel.out.take() {
            self.queued -= chunk.len();
            return Some(Transmit::Data(chunk));
        }
        channel.told = false;
        if channel.sending == Sending::Ending {
            channel.sending = Sending::Done;
            self.retire(stream);
            return Some(Transmit::Finish);
        }
        None
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Ends the connection. The control stream's queue may still be transmitted.
    pub(crate) fn close(&mut self, code: Code, reason: String) {
        if !self.closed {
            self.closed = true;
            self.sweep_at = None;
            self.outputs.push_back(Output::Close { code, reason });
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.sweep_at
    }

    /// Streams whose first frame or whose progress is overdue.
    pub(crate) fn sweep(&mut self) -> Vec<StreamId> {
        if self.closed || self.sweep_at.is_none_or(|at| at > self.now) {
            return Vec::new();
        }
        let mut overdue = Vec::new();
        let mut next: Option<Duration> = None;
        for (stream, channel) in &mut self.streams {
            let Some(watch) = &mut channel.watch else {
                continue;
            };
            if watch.deadline <= self.now {
                let slow = watch.first || watch.progress < PROGRESS_BYTES_MIN;
                if slow && !channel.paused {
                    overdue.push(*stream);
                    channel.watch = None;
                    continue;
                }
                watch.deadline = self.now + PROGRESS_TIME_MAX;
                watch.progress = 0;
            }
            next = Some(next.map_or(watch.deadline, |n| n.min(watch.deadline)));
        }
        self.sweep_at = next;
        overdue.sort_unstable();
        overdue
    }

    fn sweep_by(&mut self, deadline: Duration) {
        self.sweep_at = Some(self.sweep_at.map_or(deadline, |at| at.min(deadline)));
    }

    fn tell(outputs: &mut VecDeque<Output>, stream: StreamId, channel: &mut Channel<R>) {
        if !channel.told {
            channel.told = true;
            outputs.push_back(Output::Writable(stream));
        }
    }

    /// Forgets a stream that is over both ways.
    pub(crate) fn retire(&mut self, stream: StreamId) {
        if let Some(channel) = self.streams.get(&stream)
            && !channel.receiving
            && channel.sending == Sending::Done
        {
            self.partial -= channel.partial;
            self.streams.remove(&stream);
        }
    }
}

impl<R> Channel<R> {
    fn new(role: R) -> Self {
        Self {
            role,
            decoder: FrameDecoder::new(),
            partial: 0,
            out: OutBuffer::default(),
            receiving: true,
            fin: false,
            sending: Sending::Open,
            told: false,
            paused: false,
            watch: None,
        }
    }
}

/// The code for a frame that took too long.
pub(crate) const OVERDUE: Code = code::TIMEOUT;
