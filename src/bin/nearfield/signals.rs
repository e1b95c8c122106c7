//! What the process does about signals: nothing half-written is left, and a base that shrinks is no end.

#[cfg(unix)]
use signal_hook::{consts, iterator::Signals, low_level::emulate_default_handler};

/// SIGHUP, SIGINT and SIGTERM remove what is being written; then the process ends as by the signal. One that the caller
/// wants ignored (`nohup`, a job in the background) stays ignored.
#[cfg(unix)]
pub fn watch() {
    let wanted = [consts::SIGHUP, consts::SIGINT, consts::SIGTERM].into_iter().filter(|&signal| !is_ignored(signal));
    let Ok(mut signals) = Signals::new(wanted) else { return };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            nearfield::format::abandon_files();
            let _ = emulate_default_handler(signal);
        }
    });
}

/// Elsewhere the system's own way of ending a process is left as it is.
#[cfg(not(unix))]
pub fn watch() {}

/// As the kernel says it, where it does.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
