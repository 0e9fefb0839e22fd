//! Every bound of the plugin host, by name.

use std::time::Duration;

/// Bytes of a component.
pub const COMPONENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Functions in all modules of a component together.
pub const FUNCTIONS_MAX: usize = 20_000;
/// Core and component instances that a component spells out.
pub const INSTANCES_PER_COMPONENT_MAX: usize = 64;
/// Modules and components within one another.
pub const NESTING_MAX: usize = 4;
/// Locals of one function.
pub const LOCALS_MAX: u64 = 10_000;
/// Bytes of linear memory, whatever a binding's limits say; also what a component may begin with.
pub const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Elements of a table.
pub const TABLE_ELEMENTS_MAX: usize = 10_000;

/// CPU time of the compiling child, in seconds.
pub const COMPILE_CPU_SECONDS: u64 = 20;
/// Address space of the compiling child, in bytes.
pub const COMPILE_MEMORY_BYTES: u64 = 1024 * 1024 * 1024;
/// Wall time of the compiling child, for machines where it doesn't get its CPU time.
pub const COMPILE_WALL: Duration = Duration::from_secs(60);
/// Address space that the child gets beyond it to try what it compiled: a pool reserves 4 GiB and
/// guards for each memory, of which the guest gets what the limits say.
pub(crate) const TRIAL_RESERVE_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// Bytes that the data segments of a component's modules span, all modules together: so much
/// of a memory is prepared, and kept as long as the component is loaded.
pub const IMAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of compiled code that are taken from the child.
pub const COMPILED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of the child's words about a component that doesn't compile.
pub(crate) const COMPILE_MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Compiled components kept on disk; the oldest goes first.
pub const CACHE_FILES_MAX: usize = 1024;
/// Bytes of all of them together.
pub const CACHE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Components loaded at a time.
pub const LOADED_MAX: usize = 256;
/// Bytes of their code and images together. One that no filter uses goes first.
pub const LOADED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Instances at a time, where `vm.max_map_count` allows as many. They live for one fetch, or for one
/// check of a configuration.
pub const INSTANCES_MAX: usize = 256;
/// Memory mappings that an instance may take: 4 were measured, one is spare.
pub const MAPPINGS_PER_INSTANCE: usize = 5;
/// Core modules instantiated by one component; the SDK's have one.
pub(crate) const CORE_INSTANCES_PER_COMPONENT: u32 = 4;
/// Bytes of a freed memory slot that stay resident, zeroed: less than a page fault costs.
pub(crate) const KEEP_RESIDENT_BYTES: usize = 64 * 1024;
/// Freed slots that keep their mappings for the next instance of the same component.
pub(crate) const WARM_SLOTS_MAX: u32 = 16;

/// Bytes of stack for a guest's frames.
pub const GUEST_STACK_BYTES: usize = 256 * 1024;
/// Bytes of stack that a thread needs to call guests.
pub const CALLER_STACK_BYTES: usize = 2 * 1024 * 1024;

/// CPU time that guests have for one fetch unless its maker says otherwise.
pub const FETCH_CPU: Duration = Duration::from_millis(500);
/// CPU time of a component's first calls, in the compiling child.
pub(crate) const TRIAL_CPU: Duration = Duration::from_secs(2);
/// Fuel of an operator that asks the host for memory or table elements, whose time isn't that of one
/// instruction: some 100 ns.
pub(crate) const GROW_FUEL: u8 = 255;

/// Records of one call; more are split over calls.
pub const CALL_RECORDS_MAX: usize = 256;
/// Bytes of one call unless its one record is larger: what fits the second-level cache.
pub const CALL_BYTES_MAX: usize = 256 * 1024;
/// Bytes of text taken from a guest, before escaping.
pub const GUEST_TEXT_BYTES_MAX: usize = 512;
/// Bytes lifted from a guest per call beyond a full verdict: room for an error text.
pub(crate) const LIFTED_BYTES_SLACK: usize = 8 * 1024;
/// Bytes of a binding's configuration.
pub const CONFIG_BYTES_MAX: usize = 64 * 1024;

/// What one binding may use. Fuel counts executed instructions and bytes of bulk operations, so a cut
/// by fuel is repeatable; the CPU time is the net beneath it, for what fuel hardly counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fuel of a call, whatever its size; also the fuel of `describe`.
    pub fuel_base: u64,
    /// More fuel for each record of a call.
    pub fuel_per_record: u64,
    /// More fuel for each KiB of a call, rounded up.
    pub fuel_per_kib: u64,
    /// Fuel for making an instance and configuring it.
    pub fuel_start: u64,
    /// CPU time of an entry in ms, looked at every millisecond.
    pub call_cpu_ms: u32,
    /// Bytes of linear memory, at most [`MEMORY_BYTES_MAX`].
    pub memory_bytes: usize,
}

impl Default for Limits {
    /// A record of 1 KiB gets some 25 times what parsing its JSON takes (7,200 measured); a full call
    /// that loops is cut by fuel within a tenth of a second.
    fn default() -> Self {
        Self {
            fuel_base: 5_000_000,
            fuel_per_record: 100_000,
            fuel_per_kib: 100_000,
            fuel_start: 20_000_000,
            call_cpu_ms: 50,
            memory_bytes: 32 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// Fuel of a call over `records` in `bytes`.
    #[must_use]
    pub fn fuel(&self, records: usize, bytes: usize) -> u64 {
        self.fuel_base
            .saturating_add(self.fuel_per_record.saturating_mul(records as u64))
            .saturating_add(
                self.fuel_per_kib
                    .saturating_mul(bytes.div_ceil(1024) as u64),
            )
    }
}

const _: () = assert!(GUEST_STACK_BYTES * 4 <= CALLER_STACK_BYTES);
const _: () =
    assert!(tidegate_model::guest_call::verdict_bytes(CALL_RECORDS_MAX) < LIFTED_BYTES_SLACK);
const _: () = assert!(MEMORY_BYTES_MAX > 2 * tidegate_model::limits::SECTION_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuel_grows_with_the_call_and_never_wraps() {
        let limits = Limits {
            fuel_base: 7,
            fuel_per_record: 10,
            fuel_per_kib: 1000,
            ..Limits::default()
        };
        assert_eq!(limits.fuel(3, 1025), 7 + 30 + 2000);
        let all = Limits {
            fuel_per_kib: u64::MAX,
            ..limits
        };
        assert_eq!(all.fuel(1, 5000), u64::MAX);
    }
}
