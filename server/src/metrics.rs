//! What the node counts, in the OpenMetrics text format.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tidegate_quic::{Event, Observer};
use tidegate_store::SyncTimes;

/// Counters and gauges. Label sets are bounded: no topic, group or client name is a label.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) published_messages: Counter,
    pub(crate) published_bytes: Counter,
    pub(crate) published_duplicates: Counter,
    pub(crate) refused: Family<RefusedLabels, Counter>,
    pub(crate) delivered_messages: Counter,
    pub(crate) delivered_bytes: Counter,
    pub(crate) settled_runs: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) dead_letters_kept: Counter,
    pub(crate) expired_messages: Counter,
    pub(crate) damaged_messages: Counter,
    pub(crate) trimmed_bytes: Counter,
    pub(crate) plugin_uploads: Gauge,
    pub(crate) plugin_upload_bytes: Gauge,
    pub(crate) plugins_loaded: Gauge,
    pub(crate) plugin_loaded_bytes: Gauge,
    pub(crate) guest_calls: Counter,
    pub(crate) guest_failures: Counter,
    pub(crate) guest_records: Counter,
    pub(crate) guest_busy: Counter<f64, AtomicU64>,
    pub(crate) connections: Gauge,
    pub(crate) handshakes_failed: Counter,
    pub(crate) peers_refused: Counter,
    pub(crate) remembered_producers: Gauge,
    pub(crate) log_syncs: Gauge,
    pub(crate) log_durable_bytes: Gauge,
    pub(crate) log_tail_bytes: Gauge,
    pub(crate) log_segments: Gauge,
    pub(crate) log_fenced: Gauge,
    pub(crate) recovery_bytes: Gauge,
    pub(crate) quarantined_ranges: Gauge,
    pub(crate) disk_full: Gauge,
    pub(crate) log_oldest_wait: Gauge<f64, AtomicU64>,
    pub(crate) backup_running: Gauge,
    pub(crate) bindings_paused: Gauge,
    pub(crate) guest_instances: Gauge,
    pub(crate) clock_steps: Counter,
    pub(crate) clock_offset: Gauge<f64, AtomicU64>,
    log_live_bytes: Gauge,
    log_file_bytes: Gauge,
    reserve_bytes: Gauge,
    rewritten_bytes: Gauge,
    compacted_bytes: Gauge,
    compaction_rounds: Gauge,
    segments_removed: Gauge,
    segments_rewritten: Gauge,
    scrubbed: Gauge,
    scrub_rounds: Gauge,
    scrub_found: Gauge,
    sync_longest: Gauge<f64, AtomicU64>,
    sync_times: Arc<SyncSeconds>,
}

/// The histogram of syncs, which the log counts itself.
#[derive(Debug, Default)]
struct SyncSeconds(Mutex<SyncTimes>);

impl Collector for SyncSeconds {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let times = *self.0.lock().expect("no holder of this lock panics");
        let count = times.buckets.iter().sum();
        let bound = |at| SyncTimes::bound_us(at).map_or(f64::INFINITY, seconds);
        let buckets: Vec<(f64, u64)> = times
            .buckets
            .iter()
            .enumerate()
            .map(|(at, count)| (bound(at), *count))
            .collect();
        encoder
            .encode_descriptor(
                "log_sync",
                "How long fdatasync of the log took",
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(seconds(times.total_us), count, &buckets, None)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 microseconds are centuries"
)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RefusedLabels {
    /// Name of the error code: a bounded set.
    pub(crate) code: CodeName,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) struct CodeName(pub(crate) &'static str);

impl EncodeLabelValue for CodeName {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("tidegate");
        let mut counter = |name: &str, help: &str| {
            let metric = Counter::default();
            registry.register(name, help, metric.clone());
            metric
        };
        let published_messages = counter("published_messages", "Messages acknowledged");
        let published_duplicates = counter(
            "published_duplicates",
            "Batches answered with an earlier outcome",
        );
        let delivered_messages = counter("delivered_messages", "Messages sent to consumers");
        let settled_runs = counter("settled_runs", "Lease runs acked, nacked or extended");
        let dead_letters_kept = counter(
            "dead_letters_kept",
            "Messages given up in the dead-letter topic that they came from, and left there",
        );
        let dead_lettered = counter(
            "dead_lettered_messages",
            "Messages moved to a dead-letter topic",
        );
        let expired_messages = counter(
            "expired_messages",
            "Messages gone by retention that a group was not done with, once for each such group",
        );
        let damaged_messages = counter(
            "damaged_messages",
            "Messages that couldn't be read at any attempt of a group, once for each such group",
        );
        let guest_calls = counter("guest_calls", "Calls into plugins");
        let guest_failures = counter("guest_failures", "Calls into plugins that failed");
        let guest_records = counter("guest_records", "Messages judged by plugins");
        let handshakes_failed = counter("handshakes_failed", "Handshakes that came to nothing");
        let peers_refused = counter("peers_refused", "Peers turned away before their handshake");
        let clock_steps = counter(
            "clock_steps",
            "Times that somebody set the system's clock by half a second or more",
        );
        let guest_busy = Counter::default();
        registry.register_with_unit(
            "guest_busy",
            "Time that workers spent in plugins",
            Unit::Seconds,
            guest_busy.clone(),
        );
        let mut bytes_counter = |name: &str, help: &str| {
            let metric = Counter::default();
            registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
            metric
        };
        let published_bytes = bytes_counter("published", "Sections acknowledged");
        let trimmed_bytes = bytes_counter("log_trimmed", "Batches gone by retention");
        let delivered_bytes = bytes_counter("delivered", "Sections sent to consumers");
        let refused = Family::default();
        registry.register("refused", "Requests refused, by error", refused.clone());
        let mut gauge = |name: &str, help: &str| {
            let metric = Gauge::default();
            registry.register(name, help, metric.clone());
            metric
        };
        let connections = gauge("connections", "Connections past their handshake");
        let remembered_producers = gauge(
            "remembered_producers",
            "Pairs of a producer and a queue whose last batches are remembered, to store them once",
        );
        let log_syncs = gauge("log_syncs", "fdatasync calls of the log since start");
        let log_segments = gauge("log_segments", "Segment files");
        let log_fenced = gauge("log_fenced", "1 after a failed write or sync");
        let quarantined_ranges = gauge("log_quarantined_ranges", "Damaged ranges set apart");
        let disk_full = gauge("disk_full", "1 while there is no room for messages");
        let segments_removed = gauge(
            "log_segments_removed",
            "Segments removed since start, nothing in them being live",
        );
        let segments_rewritten = gauge(
            "log_segments_rewritten",
            "Segments rewritten since start without what was dead in them",
        );
        let compaction_rounds = gauge(
            "log_compaction_rounds",
            "Rounds of compaction by key since start",
        );
        let scrub_rounds = gauge("log_scrub_rounds", "Rounds through all full segments");
        let scrub_found = gauge("log_scrub_found", "Damaged ranges that scrubbing found");
        let bindings_paused = gauge(
            "bindings_paused",
            "Bindings that wait, since their plugin took too much time",
        );
        let guest_instances = gauge("guest_instances", "Instances of plugins that live now");
        let backup_running = gauge("backup_running", "1 while a backup holds the log");
        let plugin_uploads = gauge("plugin_uploads", "Deploys under way");
        let plugins_loaded = gauge("plugins_loaded", "Plugin components whose code is loaded");
        let mut bytes_gauge = |name: &str, help: &str| {
            let metric = Gauge::default();
            registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
            metric
        };
        let log_durable_bytes =
            bytes_gauge("log_durable", "Position up to which the log is synced");
        let log_tail_bytes = bytes_gauge("log_tail", "Position up to which the log is written");
        let recovery_bytes = bytes_gauge("recovery_read", "Log bytes read at the last start");
        let log_live_bytes = bytes_gauge("log_live", "Batches that queues still hold");
        let log_file_bytes = bytes_gauge("log_files", "Segment files");
        let reserve_bytes = bytes_gauge("log_reserve", "Kept for a full disk");
        let rewritten_bytes = bytes_gauge("log_rewritten", "Written by rewriting since start");
        let compacted_bytes = bytes_gauge(
            "log_compacted",
            "Superseded messages that compaction by key took off since start",
        );
        let plugin_upload_bytes = bytes_gauge(
            "plugin_upload",
            "Components of deploys under way, of at most 32 MiB",
        );
        let plugin_loaded_bytes = bytes_gauge(
            "plugins_loaded",
            "Code and memory images of loaded components, of at most 512 MiB",
        );
        let scrubbed = bytes_gauge("log_scrubbed", "Bytes that scrubbing has read since start");
        let mut seconds_gauge = |name: &str, help: &str| {
            let metric = Gauge::<f64, AtomicU64>::default();
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
            metric
        };
        let log_oldest_wait = seconds_gauge(
            "log_oldest_wait",
            "Time that the oldest write has waited for the disk",
        );
        let sync_longest = seconds_gauge(
            "log_sync_longest",
            "The longest fdatasync of the last 10 to 20 seconds",
        );
        let clock_offset = seconds_gauge(
            "clock_offset",
            "Time by which the log's clock is ahead of the system's",
        );
        let sync_times = Arc::<SyncSeconds>::default();
        registry.register_collector(Box::new(Arc::clone(&sync_times)));
        Self {
            published_messages,
            published_bytes,
            published_duplicates,
            refused,
            delivered_messages,
            delivered_bytes,
            settled_runs,
            dead_lettered,
            dead_letters_kept,
            expired_messages,
            damaged_messages,
            trimmed_bytes,
            guest_calls,
            guest_failures,
            guest_records,
            guest_busy,
            plugin_uploads,
            plugin_upload_bytes,
            plugins_loaded,
            plugin_loaded_bytes,
            connections,
            handshakes_failed,
            peers_refused,
            remembered_producers,
            log_syncs,
            log_durable_bytes,
            log_tail_bytes,
            log_segments,
            log_fenced,
            recovery_bytes,
            quarantined_ranges,
            disk_full,
            log_oldest_wait,
            backup_running,
            bindings_paused,
            guest_instances,
            clock_steps,
            clock_offset,
            log_live_bytes,
            log_file_bytes,
            reserve_bytes,
            rewritten_bytes,
            compacted_bytes,
            compaction_rounds,
            segments_removed,
            segments_rewritten,
            scrubbed,
            scrub_rounds,
            scrub_found,
            sync_longest,
            sync_times,
            registry,
        }
    }

    pub(crate) fn refused(&self, code: tidegate_model::Code) {
        self.refused
            .get_or_create(&RefusedLabels {
                code: CodeName(code.name()),
            })
            .inc();
    }

    /// Takes over what the log counts.
    pub(crate) fn log_stats(&self, stats: &tidegate_store::Stats) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.log_syncs.set(gauge(stats.syncs));
        self.log_durable_bytes.set(gauge(stats.durable.0));
        self.log_tail_bytes.set(gauge(stats.tail.0));
        self.log_segments.set(gauge(stats.segments));
        self.quarantined_ranges.set(gauge(stats.quarantined));
        self.recovery_bytes.set(gauge(stats.recovery_bytes_read));
        self.log_live_bytes.set(gauge(stats.live_bytes));
        self.log_file_bytes.set(gauge(stats.log_bytes));
        self.reserve_bytes.set(gauge(stats.reserve_bytes));
        self.rewritten_bytes.set(gauge(stats.moved_bytes));
        self.compacted_bytes.set(gauge(stats.compacted_bytes));
        self.compaction_rounds.set(gauge(stats.compaction_rounds));
        self.segments_removed.set(gauge(stats.segments_removed));
        self.segments_rewritten.set(gauge(stats.segments_rewritten));
        self.scrubbed.set(gauge(stats.scrub.bytes));
        self.scrub_rounds.set(gauge(stats.scrub.rounds));
        self.scrub_found.set(gauge(stats.scrub.found));
        self.sync_longest
            .set(seconds(stats.sync_times.recent_max_us));
        let mut sync_times = self
            .sync_times
            .0
            .lock()
            .expect("no holder of this lock panics");
        *sync_times = stats.sync_times;
    }

    /// The metrics as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string succeeds");
        text
    }
}

/// Counts what the listener sees.
pub(crate) struct Connections(pub(crate) Arc<Metrics>);

impl Observer for Connections {
    fn event(&self, event: Event) {
        let metrics = &self.0;
        match event {
            Event::Connected => drop(metrics.connections.inc()),
            Event::Closed => drop(metrics.connections.dec()),
            Event::HandshakeFailed => drop(metrics.handshakes_failed.inc()),
            Event::Refused => drop(metrics.peers_refused.inc()),
            Event::TurnedAway(code) => metrics.refused(code),
            Event::Retried | Event::Authenticated => {}
        }
    }
}
