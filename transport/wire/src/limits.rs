//! Bounds of the protocol. All inclusive unless their name says otherwise.

use core::time::Duration;

use tidegate_model::limits::SECTION_BYTES_MAX;

/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;
/// ALPN of the protocol; its number is the major version (RFC 7301).
pub const ALPN: &[u8] = b"tidegate/1";
/// Label under which both ends export keying material (RFC 8446 section 7.5) for the client to sign:
/// 32 bytes, empty context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-tidegate-auth-1";
/// Bytes of exported keying material.
pub const EXPORTER_BYTES: usize = 32;

/// Bytes that a peer may send before it is authenticated.
pub const PREAUTH_BYTES_MAX: usize = 16 * 1024;
/// How long a peer may take to authenticate.
pub const PREAUTH_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the first frame of a stream may take.
pub const FIRST_FRAME_TIME_MAX: Duration = Duration::from_secs(5);
/// A half-sent frame must progress within this time, or its stream is reset…
pub const PROGRESS_TIME_MAX: Duration = Duration::from_secs(10);
/// …by at least this many bytes.
pub const PROGRESS_BYTES_MIN: u64 = 10 * 1024;
/// A client that expects something and has heard nothing for this long asks for a sign of life; if the
/// answer is all that it hears, for twice as long the next time…
pub const QUIET_TIME_MIN: Duration = Duration::from_secs(1);
/// …but no longer than this…
pub const QUIET_TIME_MAX: Duration = Duration::from_secs(10);
/// …and takes the server for gone when none came for so long after that.
pub const PING_ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Bytes of a frame that carries a section: headers may grow up to 1 KiB.
pub const SECTION_FRAME_BYTES_MAX: usize = SECTION_BYTES_MAX + 1024;
/// Bytes of a control frame.
pub const CONTROL_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a frame sent before authentication.
pub const HELLO_FRAME_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a plugin component.
pub const COMPONENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of a request frame: a component and 64 KiB for what surrounds it.
pub const REQUEST_FRAME_BYTES_MAX: usize = COMPONENT_BYTES_MAX + 64 * 1024;
/// Fields of a request, and of the messages right in it: lists have a field for each element.
pub const REQUEST_FIELDS_MAX: usize = 4096;
/// Bytes of frames in the making over all streams of a connection; a stream that goes on beyond it is
/// reset.
pub const CONNECTION_PARTIAL_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of a reply frame: a list of a namespace.
pub const REPLY_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a code's message or hint.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Produce and request streams that a client may have open at once, the control stream aside.
pub const STREAMS_MAX: usize = 128;
/// Consume streams of a connection; further queues share them.
pub const CONSUME_STREAMS_MAX: usize = 64;
/// Live subscriptions of a connection.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Aliases of a connection.
pub const ALIASES_MAX: usize = 16_384;
/// Batches of one produce stream that wait for an answer; then the server stops reading it.
pub const PUBLISHES_IN_FLIGHT_MAX: usize = 1024;
/// Bytes of sections of one produce stream that wait for an answer; then the server stops reading it.
/// One batch is always allowed.
pub const PUBLISH_BYTES_IN_FLIGHT_MAX: usize = 16 * 1024 * 1024;
/// Batches of one producer that wait for an answer in one queue: the broker remembers the outcomes of
/// as many, so that each can be repeated after a lost connection.
pub const QUEUE_IN_FLIGHT_MAX: usize = 512;
/// Settle frames of a connection that wait for an answer; then the server stops reading the control
/// stream.
pub const SETTLES_IN_FLIGHT_MAX: usize = 1024;
/// Runs of one settle frame.
pub const SETTLE_RUNS_MAX: usize = 1024;
/// Messages granted and not yet sent, over all subscriptions of a connection.
pub const CREDIT_MESSAGES_MAX: u32 = 1 << 20;
/// Bytes granted and not yet sent, over all subscriptions of a connection.
pub const CREDIT_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Bytes waiting to be sent on one stream beyond which nothing more is read from that stream.
pub const STREAM_OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Bytes waiting to be sent on a connection beyond which its control stream is not read, so that no
/// credit comes in.
pub const CONNECTION_OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Delivery frames of one reply.
pub const REPLY_DELIVERIES_MAX: usize = 4096;
/// Bytes of sections that a client gathers for one reply.
pub const REPLY_DELIVERY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a piece of a file of a backup.
pub const BACKUP_PIECE_BYTES_MAX: u32 = 1024 * 1024;
/// Files of a backup that one reply lists.
pub const BACKUP_FILES_PAGE: usize = 4096;

/// Chunks handed to the transport are filled up to this, in bytes.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// A payload of this many bytes or more goes out as it is; a smaller one is copied behind its header.
pub const CHUNK_BYTES_MIN: usize = 16 * 1024;

const _: () = assert!(CONNECTION_PARTIAL_BYTES_MAX >= 4 * SECTION_FRAME_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES_MIN <= CHUNK_BYTES_MAX);
const _: () = assert!(HELLO_FRAME_BYTES_MAX <= PREAUTH_BYTES_MAX);
const _: () = assert!(SECTION_FRAME_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(SETTLE_RUNS_MAX <= u16::MAX as usize);
