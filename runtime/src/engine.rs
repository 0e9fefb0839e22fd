//! The engine's settings: one engine per host, the same for compiling and for running.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, OptLevel,
    PoolingAllocationConfig, Strategy, WasmFeatures,
};

use crate::error::PluginError;
use crate::limits::{
    CORE_INSTANCES_PER_COMPONENT, GROW_FUEL, GUEST_STACK_BYTES, INSTANCES_MAX, KEEP_RESIDENT_BYTES,
    MAPPINGS_PER_INSTANCE, MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX, WARM_SLOTS_MAX,
};

/// What Linux allows where `vm.max_map_count` can't be read: its default.
const MAP_COUNT_DEFAULT: usize = 65_530;

/// Settings that decide the compiled code. Guard pages, Spectre mitigations and signal-based traps
/// stay at their defaults, which are the safe ones.
fn base_config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // Replay must give the same bits on every machine.
        .cranelift_nan_canonicalization(true)
        // Fuel is repeatable, the epoch looks at CPU time; neither shows on header filters.
        .consume_fuel(true)
        .operator_cost(OperatorCost {
            MemoryGrow: GROW_FUEL,
            TableGrow: GROW_FUEL,
            ..OperatorCost::new()
        })
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        // On, it makes every call three times dearer.
        .concurrency_support(false)
        .wasm_backtrace_max_frames(None::<NonZeroUsize>)
        .wasm_features(WasmFeatures::all(), false)
        .wasm_features(allowed_features(), true);
    config
}

/// What a guest may use of WebAssembly: what compilers of today emit without being asked, and tail
/// calls. All else is off, whatever the engine's defaults are: a proposal that is new to the engine
/// is where its defects are, and what isn't on this list was never tried here.
pub(crate) fn allowed_features() -> WasmFeatures {
    WasmFeatures::FLOATS
        | WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::COMPONENT_MODEL
}

/// The engine that runs guests, with `instances` slots.
pub(crate) fn host_engine(instances: usize) -> Result<Engine, PluginError> {
    let slots = u32::try_from(instances).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .total_memories(slots)
        .max_memories_per_component(1)
        .total_tables(slots.saturating_mul(2))
        .max_tables_per_component(2)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_unused_warm_slots(WARM_SLOTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::No);
    let mut config = base_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).map_err(engine_error)
}

/// The engine that compiles and never runs: no pool, so that it fits a small address space.
pub(crate) fn compiler_engine() -> Result<Engine, PluginError> {
    let mut config = base_config();
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config).map_err(engine_error)
}

/// Identifies what this engine can load: its version, settings and processor. Only names files, so
/// its hash may change with the standard library; the engine itself checks what it loads.
pub(crate) fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// How many instances the kernel's limit on mappings has room for, at most [`INSTANCES_MAX`].
pub(crate) fn instances_max() -> usize {
    let mappings = fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(MAP_COUNT_DEFAULT);
    instances_for(mappings)
}

fn instances_for(mappings: usize) -> usize {
    (mappings / MAPPINGS_PER_INSTANCE).clamp(1, INSTANCES_MAX)
}

pub(crate) fn engine_error(error: wasmtime::Error) -> PluginError {
    PluginError::Engine {
        message: format!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_mappings_is_for_instances() {
        assert_eq!(instances_for(1_000), 200);
        assert_eq!(instances_for(usize::MAX), INSTANCES_MAX);
        assert_eq!(instances_for(0), 1);
    }

    #[test]
    fn what_one_engine_compiles_the_other_can_load() {
        let (compiler, host) = (compiler_engine().unwrap(), host_engine(2).unwrap());
        assert_eq!(compatibility(&compiler), compatibility(&host));
    }
}
