//! Bounds that client, server and formats agree on. All inclusive unless their name says otherwise.

/// Bytes of one message's body.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one record's head: tag, group, keys and properties with their framing.
pub const HEAD_BYTES_MAX: usize = 60 * 1024;
/// Bytes of a section as stored: record table, head block and (compressed) body block.
pub const SECTION_BYTES_MAX: usize = BODY_BYTES_MAX + 64 * 1024;
/// Bytes of a body block once uncompressed; what a decoder may allocate for one batch.
pub const BODY_BLOCK_BYTES_MAX: usize = BODY_BYTES_MAX;
/// Records of one batch.
pub const BATCH_RECORDS_MAX: usize = 4096;
/// Bytes of a tag.
pub const TAG_BYTES_MAX: usize = 255;
/// Bytes of a message group.
pub const MESSAGE_GROUP_BYTES_MAX: usize = 255;
/// Keys of one message.
pub const KEYS_MAX: usize = 64;
/// Properties of one message.
pub const PROPERTIES_MAX: usize = 256;
/// Bytes of a property's name.
pub const PROPERTY_NAME_BYTES_MAX: usize = 255;
/// Highest priority; 0 is the default and the lowest.
pub const PRIORITY_MAX: u8 = 9;
/// Bytes of a topic, group, view, namespace or plugin name.
pub const NAME_BYTES_MAX: usize = 127;
/// Queues of one topic.
pub const TOPIC_QUEUES_MAX: u32 = 1024;

const _: () = assert!(HEAD_BYTES_MAX.is_multiple_of(8));
const _: () = assert!(BODY_BYTES_MAX + HEAD_BYTES_MAX + 4096 <= SECTION_BYTES_MAX);
const _: () = assert!(BATCH_RECORDS_MAX <= u16::MAX as usize);
const _: () = assert!(SECTION_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(size_of::<usize>() >= 4);
