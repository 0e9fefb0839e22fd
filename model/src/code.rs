//! Error codes: one table for the wire, the log, the command line and HTTP.
//!
//! A code is a number that means the same for ever. `tidegate help TG0312` prints its entry.
//! Readers must accept numbers that they do not know: [`Code::remedy`] has an answer for them.

use core::fmt;

/// The number of a kind of failure. Zero is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The same request may succeed later.
    Retry,
    /// The request must change.
    Change,
    /// Somebody must grant or renew access.
    Access,
    /// The thing named isn't there.
    Missing,
    /// It clashes with what is there.
    Conflict,
    /// An operator must act on the server.
    Operator,
}

/// One entry of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The number.
    pub code: Code,
    /// Short name, as in `topic-not-found`.
    pub name: &'static str,
    /// What the caller can do.
    pub remedy: Remedy,
    /// What happened, and what to do: a few sentences.
    pub text: &'static str,
}

macro_rules! codes {
    ($($number:literal $constant:ident $name:literal $remedy:ident $text:literal)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $text)]
            pub const $constant: Code = Code($number);
        )*

        /// Every code, rising.
        pub const TABLE: &[Entry] = &[
            $(Entry { code: $constant, name: $name, remedy: Remedy::$remedy, text: $text },)*
        ];
    };
}

codes! {
    1 INTERNAL "internal" Operator
        "The server met a state that it should never be in. Nothing was acknowledged. Its log has the details; please report it."
    2 PROTOCOL "protocol" Change
        "The peer sent bytes that the protocol doesn't allow here. Check that both ends speak the same version and that nothing in between rewrites the stream."
    3 SHUTTING_DOWN "shutting-down" Retry
        "The server is stopping and takes no new requests. Reconnect in a moment; what was acknowledged is stored."
    4 OVERLOADED "overloaded" Retry
        "A queue inside the server is full. Slow down and send again; nothing of the refused request was stored."
    5 VERSION "version" Change
        "The peers share no version of the protocol. Upgrade the older one."
    6 TIMEOUT "timeout" Retry
        "The answer didn't come in time. Whether the request took effect is unknown; an idempotent producer may send the same sequence again."
    7 CANCELLED "cancelled" Retry
        "The peer withdrew the request or went away before it was answered."
    8 UNREACHABLE "unreachable" Retry
        "No server answered at the address. Check that it runs, that the port is right, and that UDP may pass."
    9 UNSUPPORTED "unsupported" Change
        "This server knows the request but can't serve it. The message says what it lacks."

    101 INVALID_NAME "invalid-name" Change
        "A name has 1 to 127 letters, digits, '_', '-' and '.', begins with a letter or digit, and has no '..' and no '/'. Names that begin with '%' belong to the broker."
    102 TOPIC_NOT_FOUND "topic-not-found" Missing
        "There is no such topic in the namespace. `tidegate topic ls` shows those there are; `tidegate topic create NAME` makes one."
    103 TOPIC_EXISTS "topic-exists" Conflict
        "A topic of this name is there already. Choose another name, or use it as it is."
    104 GROUP_NOT_FOUND "group-not-found" Missing
        "There is no such consumer group. `tidegate group ls` shows those there are; `tidegate group create NAME` makes one."
    105 GROUP_EXISTS "group-exists" Conflict
        "A consumer group of this name is there already."
    106 VIEW_NOT_FOUND "view-not-found" Missing
        "There is no such view. A view is written TOPIC@NAME; `tidegate view ls` shows those there are."
    107 VIEW_EXISTS "view-exists" Conflict
        "A view of this name is there already. Remove it first, or choose another name."
    108 IN_USE "in-use" Conflict
        "Something else still refers to it. The message names it; remove that first."
    109 INVALID_ARGUMENT "invalid-argument" Change
        "A value is outside what the request allows. The message names the field and its bounds."
    110 LIMIT_REACHED "limit-reached" Change
        "The server holds as many of these as it is configured to. Remove some, or raise the limit."
    111 MESSAGE_TOO_LARGE "message-too-large" Change
        "A message body has at most 4 MiB, its head 60 KiB. Store large payloads elsewhere and send a reference."
    112 BATCH_INVALID "batch-invalid" Change
        "The record table, a head or a length of the batch is wrong. Nothing of it was stored. A client library that builds such batches has a defect."
    113 CHECKSUM "checksum" Retry
        "The batch's checksum doesn't fit its bytes: they changed on the way. Nothing of it was stored; send it again."
    114 QUEUE_NOT_FOUND "queue-not-found" Missing
        "The topic has no queue of this number. Ask for the topic's queues again: it may have been made anew."
    115 LAYOUT_CHANGED "layout-changed" Retry
        "The topic's queues changed since the producer asked. Fetch the layout and place keyed messages anew."
    116 PRODUCER_FENCED "producer-fenced" Conflict
        "A producer of the same id with a higher epoch is at work. This one must stop, or open anew."
    117 SEQUENCE_GAP "sequence-gap" Conflict
        "The sequence skips records that never arrived. Send the missing batches first, in order."
    118 SEQUENCE_TOO_OLD "sequence-too-old" Conflict
        "The sequence lies before what the broker remembers of this producer. The batch was stored long ago or never; its outcome is no longer known."
    119 OFFSET_OUT_OF_RANGE "offset-out-of-range" Change
        "The queue doesn't hold this offset. The message names the first and the next offset."
    120 DUE_TIME_UNSUPPORTED "due-time-unsupported" Change
        "This server stores messages for delivery at once only. Send it without a due time."
    121 DEAD_LETTER_READ_ONLY "dead-letter-read-only" Change
        "Dead-letter topics are written by the broker alone."
    122 MESSAGE_NOT_FOUND "message-not-found" Missing
        "The topic holds no such message, or no longer: retention removes what has served its time. `tidegate message find TOPIC --key KEY` looks for messages by key and time."
    123 KEY_REQUIRED "key-required" Change
        "The topic keeps the newest message of each key, so each of its messages needs a key. Give the message one; `tidegate topic set TOPIC --compact=false` lets it keep messages without."

    140 CLIENT_NOT_FOUND "client-not-found" Missing
        "No client of this name is let in or invited. `tidegate client ls` shows those that are."
    141 CLIENT_EXISTS "client-exists" Conflict
        "A client of this name is let in or invited already, or the key is another client's. Choose another name, or revoke the one that is there."
    142 LAST_ADMIN "last-admin" Conflict
        "Nobody could manage the broker any more. Let another admin in first: `tidegate client invite NAME --role admin`."

    201 AUTH_REQUIRED "auth-required" Access
        "The connection sent no credentials. `tidegate login ADDRESS` gets a client key."
    202 AUTH_FAILED "auth-failed" Access
        "The server doesn't know this client key, or the signature is wrong. `tidegate login ADDRESS` gets a new one."
    203 TOKEN_INVALID "token-invalid" Access
        "The token is wrong, was used before or was withdrawn. A token works once: an admin gives a new one with `tidegate client invite NAME`; a server with no client yet prints one when it starts."
    204 TOKEN_EXPIRED "token-expired" Access
        "The token was good for a time that is over. An admin gives a new one with `tidegate client invite NAME`; a server with no client yet prints one when it starts, and `tidegate serve --new-root-token` does in any case."
    205 FORBIDDEN "forbidden" Access
        "The client's roles don't allow this. The message names client, action and resource; an admin gives roles with `tidegate client invite NAME --role ROLE`."
    206 PIN_MISMATCH "pin-mismatch" Access
        "The server's certificate doesn't carry the key that the address pins. Either the server was set up anew (log in again with the address that it prints) or somebody stands in between."
    207 AUTH_TIMEOUT "auth-timeout" Access
        "The peer didn't authenticate within five seconds."
    208 PREAUTH_LIMIT "preauth-limit" Access
        "Before authentication a peer has one stream and 16 KiB. It wanted more."
    220 KEY_REVOKED "key-revoked" Access
        "An admin has revoked this client key, and it can't come back. With a new invitation, `tidegate login ADDRESS` makes a new one."

    301 PLUGIN_NOT_COMPONENT "plugin-not-component" Change
        "The upload is no WebAssembly component. A core module becomes one with `tidegate plugin build`."
    302 PLUGIN_WRONG_WORLD "plugin-wrong-world" Change
        "The component doesn't fit the world that this server offers: it exports another version of it, functions of other types, or reads another batch layout. The message says which. Build it against the tidegate:plugin package of this server."
    303 PLUGIN_MISSING_EXPORT "plugin-missing-export" Change
        "The component lacks an export that its world demands. The message names it; the SDK's macro writes them all."
    304 PLUGIN_FORBIDDEN_IMPORT "plugin-forbidden-import" Change
        "The component imports something that a filter isn't given. Filters have no WASI: build for wasm32-unknown-unknown and drop what needs a clock, files or the network."
    305 PLUGIN_TOO_LARGE "plugin-too-large" Change
        "The component is over the size limit. Build with --release and strip it."
    306 PLUGIN_SHAPE "plugin-shape" Change
        "The component has more of something than is allowed (functions, instances, nesting, locals, memory to begin with, data), uses what filters do without (resources), or needs more than the server gives to an instance. The message names it, and the limit."
    307 PLUGIN_COMPILE_FAILED "plugin-compile-failed" Change
        "The component isn't valid WebAssembly of the kind that this server runs, or the compiler or engine broke on it; that happened in a process of its own. The message says which."
    308 PLUGIN_COMPILE_LIMIT "plugin-compile-limit" Change
        "Compiling the component met a limit: CPU time, wall time, memory, or the size of the compiled code. The message names it. Make the component smaller; where the wall time was met, the machine was busy, so try again."
    309 PLUGIN_CONFIG_REFUSED "plugin-config-refused" Change
        "The plugin refused its configuration. The message is the plugin's."
    310 PLUGIN_NOT_FOUND "plugin-not-found" Missing
        "There is no plugin of this name and version. `tidegate plugin ls` shows those there are."
    311 PLUGIN_EXISTS "plugin-exists" Conflict
        "This name and version stand for another component already. Versions never change: deploy under a new version."
    312 PLUGIN_TRAP "plugin-trap" Change
        "The plugin trapped: it panicked, divided by zero or read out of bounds. The binding's on-error policy decided about the messages of that call."
    313 PLUGIN_OUT_OF_FUEL "plugin-out-of-fuel" Change
        "The plugin used up its fuel: it loops, or does too much per message. The binding's on-error policy decided about the messages of that call."
    314 PLUGIN_DEADLINE "plugin-deadline" Change
        "The plugin ran longer than its deadline. The binding's on-error policy decided about the messages of that call."
    315 PLUGIN_MEMORY "plugin-memory" Change
        "The plugin wanted more memory or table elements than its limit; the message says which. In delivery the binding's on-error policy decides about the messages of that call; a deploy or a binding is refused."
    316 PLUGIN_BAD_VERDICT "plugin-bad-verdict" Change
        "The plugin's answer can't be read: it lies outside its memory, has the wrong length or stray bits, is too long, or is text that is no UTF-8. In delivery the binding's on-error policy decides about the messages of that call; a deploy or a binding is refused."
    317 PLUGIN_GUEST_ERROR "plugin-guest-error" Change
        "The plugin reported an error of its own; the message is the plugin's. The binding's on-error policy decided about the messages of that call."
    318 PLUGIN_INSTANCES_FULL "plugin-instances-full" Retry
        "The server runs as many plugin instances as its memory maps allow. Unbind some, or raise vm.max_map_count."
    319 PLUGIN_DISABLED "plugin-disabled" Operator
        "An operator has switched all plugins off."
    320 PLUGIN_STOPPED "plugin-stopped" Operator
        "The binding's on-error policy is `stop` and its plugin failed. Delivery waits at that message until the binding is changed."
    321 PLUGIN_PAUSED "plugin-paused" Retry
        "The plugin took all the CPU time that it has for one fetch, so its binding waits for a while and others go on; each time again it waits longer, two seconds at most. Delivery through it goes on by itself. Look for what is slow in it: `tidegate plugin info` shows its last failures."
    325 PLUGIN_COMPILING "plugin-compiling" Retry
        "The plugin's compiled code isn't there, after an update of the server or a loss of its cache, and is being made. Delivery through it goes on by itself when it is done."

    401 DATA_VERSION "data-version" Operator
        "The data folder was written in a format that this version doesn't read. Start it with the version that wrote it, or choose an empty folder."
    402 DATA_IN_USE "data-in-use" Operator
        "Another process has this data folder open. Stop it, or choose another folder."
    403 DISK_FULL "disk-full" Retry
        "The disk has no room for new messages. Reading, acknowledging and deleting still work; free space and send again."
    404 LOG_FENCED "log-fenced" Operator
        "A write or sync failed, so the log takes nothing more: what was acknowledged before is safe. Check the disk and restart the server."
    405 QUARANTINED "quarantined" Operator
        "A range of the log is damaged and set apart. What lies around it is served; the message names the range."
    406 DATA_CORRUPT "data-corrupt" Operator
        "A file in the data folder can't be read as what it should be. The message names it."
    407 BACKUP_RUNNING "backup-running" Retry
        "Another backup of this node is being made, and there is one at a time. Wait until it has ended; one whose client went away ends within 10 s."
    408 BACKUP_OVER "backup-over" Retry
        "The node no longer holds this backup's files: nothing was asked of it for 10 s, or the connection is another one. Begin again; what has come is not fetched again."

    501 LEASE_EXPIRED "lease-expired" Conflict
        "The invisible duration ended, or another holder acknowledged the message. It may be delivered again; ask for a longer duration or renew in time."
    502 LEASE_INVALID "lease-invalid" Change
        "The receipt handle wasn't given by this server, or was changed."
    503 SUBSCRIPTION_NOT_FOUND "subscription-not-found" Missing
        "The connection or group has no such subscription."
    504 SUBSCRIPTION_EXISTS "subscription-exists" Conflict
        "The connection has a subscription of this number already."
    505 GROUP_DELETED "group-deleted" Missing
        "The group, topic or view was removed while it was being consumed."
    506 BINDING_NOT_FOUND "binding-not-found" Missing
        "No plugin is bound there. `tidegate group info GROUP` and `tidegate view info VIEW` show bindings."

    601 INPUT "input" Change
        "A line of the input is no message. The message names the line and what is wrong; nothing after it was sent."
    602 CONTEXT_NOT_FOUND "context-not-found" Missing
        "There is no such context on this machine. `tidegate context ls` shows those there are; `tidegate login ADDRESS` makes one."
    603 ADDRESS "address" Change
        "A server's address reads tidegate://HOST:PORT?pin=sha256:..., as printed when it starts."
    604 FILE "file" Change
        "A file can't be read or written. The message names it and says why."
    605 GUEST_TOOLCHAIN "guest-toolchain" Change
        "No Rust for wasm32-unknown-unknown was found. `rustup target add wasm32-unknown-unknown` installs its library; on Debian, `apt-get install rustc-web cargo-web rust-web-src lld-19` does as well."
    606 BACKUP_FOLDER "backup-folder" Change
        "The folder holds no backups, those of another node, or those of another version. A folder for backups is made by `tidegate backup create FOLDER`, and is for one node."
    607 BACKUP_NOT_FOUND "backup-not-found" Missing
        "The folder holds no such backup. `tidegate backup ls FOLDER` shows those that are complete."
    608 BACKUP_DAMAGED "backup-damaged" Operator
        "A file of the backup is not what it was. Restore another one; `tidegate backup create FOLDER` fetches what is damaged again, as long as the node still has it."
}

impl Code {
    /// Whether what it stands for passes by itself: delivery that meets it waits and tries again. What
    /// doesn't pass waits for somebody to act.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            OVERLOADED
                | CANCELLED
                | LIMIT_REACHED
                | PLUGIN_INSTANCES_FULL
                | PLUGIN_DISABLED
                | PLUGIN_PAUSED
                | PLUGIN_COMPILING
        )
    }

    /// The table's entry; `None` for a number that this version doesn't know.
    #[must_use]
    pub fn entry(self) -> Option<&'static Entry> {
        TABLE
            .binary_search_by_key(&self, |entry| entry.code)
            .ok()
            .map(|index| &TABLE[index])
    }

    /// Short name, `unknown` for a number that this version doesn't know.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().map_or("unknown", |entry| entry.name)
    }

    /// What the caller can do; a number that this version doesn't know asks for a change.
    #[must_use]
    pub fn remedy(self) -> Remedy {
        self.entry().map_or(Remedy::Change, |entry| entry.remedy)
    }
}

impl fmt::Display for Code {
    /// `TG0312`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TG{:04}", self.0)
    }
}

impl core::str::FromStr for Code {
    type Err = CodeError;

    /// Reads `TG0312`, `tg312` or `312`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = match text.get(..2) {
            Some(prefix) if prefix.eq_ignore_ascii_case("tg") => &text[2..],
            _ => text,
        };
        digits.parse().map(Self).map_err(|_| CodeError)
    }
}

/// The text is no error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an error code reads TG and four digits, as in TG0312")]
pub struct CodeError;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn the_table_rises_and_every_text_ends_a_sentence() {
        assert!(TABLE.is_sorted_by(|a, b| a.code < b.code));
        for entry in TABLE {
            assert!(entry.text.ends_with('.'), "{}", entry.name);
        }
    }

    #[test]
    fn codes_print_and_parse() {
        assert_eq!(PLUGIN_TRAP.to_string(), "TG0312");
        for text in ["TG0312", "tg312", "312"] {
            assert_eq!(text.parse(), Ok(PLUGIN_TRAP));
        }
        assert_eq!("TGxyz".parse::<Code>(), Err(CodeError));
        assert_eq!(Code(999).name(), "unknown");
    }
}
