//! What the figures were measured on, and what processes use.

use std::fs;
use std::path::Path;

use crate::table::Table;

/// CPU, memory, kernel.
pub(crate) fn describe() -> Table {
    let mut table = Table::new("Machine", &["what", "value"]);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    for (what, value) in [
        ("CPU", format!("{model}, {cores} cores")),
        ("kernel", format!("Linux {}", kernel.trim())),
        ("load at start", load),
    ] {
        table.row(vec![what.to_owned(), value]);
    }
    table
}

/// CPU nanoseconds that a process has used, user and system.
pub(crate) fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name may hold spaces; fields count from the last parenthesis.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let per_second = rustix::param::clock_ticks_per_second();
    Ok((ticks(11) + ticks(12)) * 1_000_000_000 / per_second)
}

/// RssAnon + RssShmem in KiB: memory that can't be dropped like a file's pages.
pub(crate) fn private_kib(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim_start_matches(':').split_whitespace().next())
            .and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(field("RssAnon") + field("RssShmem"))
}

/// Bytes that the disk under a folder has been given since the machine started, by anybody. `None`
/// where the kernel has no counter for it.
pub(crate) fn device_bytes(folder: &Path) -> anyhow::Result<Option<u64>> {
    let device = rustix::fs::stat(folder)?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let Ok(text) = fs::read_to_string(path) else {
        return Ok(None);
    };
    // The seventh field counts sectors of 512 bytes, whatever the device's own are.
    let sectors = text.split_whitespace().nth(6);
    Ok(sectors
        .and_then(|count| count.parse::<u64>().ok())
        .map(|count| count * 512))
}

/// Bytes of the files below `folder` whose names end so.
pub(crate) fn bytes_of(folder: &Path, ending: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            bytes += bytes_of(&entry.path(), ending)?;
        } else if entry.file_name().to_string_lossy().ends_with(ending) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}
