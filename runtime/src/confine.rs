//! What the compiling child takes from itself before it reads a byte of a component: time, memory,
//! files, new rights, and every system call that compiling doesn't need.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, getpid, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::set_no_new_privs;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::limits::{
    COMPILE_CPU_SECONDS, COMPILE_MEMORY_BYTES, IMAGE_BYTES_MAX, TRIAL_RESERVE_BYTES,
};

/// Descriptors of the child: its three streams, and those of memory images while it tries the
/// component. It opens neither file nor socket.
const DESCRIPTORS: u64 = 16;
/// After its time the child gets a signal that says so, and this much later one that it can't miss.
const CPU_GRACE_SECONDS: u64 = 2;
/// Bytes of the largest file: a memory image, rounded up.
const FILE_BYTES: u64 = 2 * IMAGE_BYTES_MAX;

/// System calls that allocate, run threads, tell the time, read and write what is open, and end.
const CALLS: [libc::c_long; 32] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_memfd_create,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Confines this process. Must come before it starts a thread. The answer is what could not be had
/// on this kernel and does without.
///
/// # Errors
/// A limit that could not be set: without it nothing may be compiled.
pub(crate) fn confine() -> io::Result<Option<String>> {
    for (resource, soft, hard) in [
        (
            Resource::Cpu,
            COMPILE_CPU_SECONDS,
            COMPILE_CPU_SECONDS + CPU_GRACE_SECONDS,
        ),
        (
            Resource::As,
            COMPILE_MEMORY_BYTES,
            COMPILE_MEMORY_BYTES + TRIAL_RESERVE_BYTES,
        ),
        // Counts what can be written to: what is only reserved for the trial isn't.
        (Resource::Data, COMPILE_MEMORY_BYTES, COMPILE_MEMORY_BYTES),
        (Resource::Nofile, DESCRIPTORS, DESCRIPTORS),
        (Resource::Core, 0, 0),
        (Resource::Fsize, FILE_BYTES, FILE_BYTES),
    ] {
        limit(resource, soft, hard)?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // A server that dies must not leave a compiler behind.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_no_new_privs(true)?;
    let filtered = filter(getpid())
        .and_then(|program| seccompiler::apply_filter(&program).map_err(|e| e.to_string()));
    Ok(filtered
        .err()
        .map(|error| format!("it runs without a filter of system calls: {error}")))
}

/// Address space for the pool of the trial, which reserves more than it uses.
pub(crate) fn reserve_for_trial() -> io::Result<()> {
    let all = COMPILE_MEMORY_BYTES + TRIAL_RESERVE_BYTES;
    limit(Resource::As, all, all)
}

/// What the process was given to begin with can't be raised, so the lower limit counts.
fn limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let given = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Rlimit {
        current: Some(soft.min(given)),
        maximum: Some(hard.min(given)),
    };
    Ok(setrlimit(resource, limit)?)
}

/// To all other calls the kernel answers that it hasn't got them: the C library and the engine then
/// do without, as they would on an old kernel.
fn filter(own: Pid) -> Result<BpfProgram, String> {
    let is = |argument, len, value| {
        let condition = SeccompCondition::new(argument, len, SeccompCmpOp::Eq, value);
        condition.map_err(|error| error.to_string())
    };
    let has = |argument, bits: u64| {
        let op = SeccompCmpOp::MaskedEq(bits);
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, bits)
            .map_err(|error| error.to_string())
    };
    let rule = |condition| SeccompRule::new(vec![condition]).map_err(|error| error.to_string());
    let own = u64::from(own.as_raw_nonzero().get().unsigned_abs());
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().map(|call| (*call, Vec::new())).collect();
    // Threads, no processes.
    rules.insert(libc::SYS_clone, vec![rule(has(0, thread)?)?]);
    // To abort, and to end nobody else.
    rules.insert(
        libc::SYS_tgkill,
        vec![rule(is(0, SeccompCmpArgLen::Dword, own)?)?],
    );
    // Its own limits, which only become tighter than they were made above.
    rules.insert(
        libc::SYS_prlimit64,
        vec![
            rule(is(0, SeccompCmpArgLen::Dword, 0)?)?,
            rule(is(0, SeccompCmpArgLen::Dword, own)?)?,
        ],
    );
    let arch = TargetArch::try_from(ARCH).map_err(|error| error.to_string())?;
    let absent = u32::try_from(libc::ENOSYS).map_err(|error| error.to_string())?;
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(absent),
        SeccompAction::Allow,
        arch,
    )
    .and_then(BpfProgram::try_from)
    .map_err(|error| error.to_string())
}
