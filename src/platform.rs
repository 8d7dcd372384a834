//! What each operating system tells in its own way.

use memmap2::Mmap;

/// The physical cores that this process may run on and that are worth a thread, where the system tells: cores that are much slower than
/// the fastest keep everybody waiting.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn physical_cores() -> Option<usize> {
    use nix::sched::{CpuSet, sched_getaffinity};
    let allowed = sched_getaffinity(nix::unistd::Pid::from_raw(0)).ok()?;
    let cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    count_cores(cpus, |cpu, file| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/{file}")).ok())
}

/// See there: the performance cores of Apple silicon, else all cores.
#[cfg(target_os = "macos")]
pub(crate) fn physical_cores() -> Option<usize> {
    use sysctl::{Ctl, CtlValue, Sysctl};
    let number = |name: &str| match Ctl::new(name).ok()?.value().ok()? {
        CtlValue::Int(cores) | CtlValue::S32(cores) => usize::try_from(cores).ok().filter(|cores| *cores > 0),
        _ => None,
    };
    number("hw.perflevel0.physicalcpu").or_else(|| number("hw.physicalcpu"))
}

/// See there.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos")))]
pub(crate) fn physical_cores() -> Option<usize> {
    Some(num_cpus::get_physical())
}

/// Cores that `cpus` belong to, by the files that Linux has of each: those of one core name the same siblings, and where cores differ
/// each has a capacity, of which the largest is 1024. Nothing where a core is unknown.
#[cfg(any(test, target_os = "linux", target_os = "android"))]
fn count_cores(cpus: impl Iterator<Item = usize>, file: impl Fn(usize, &str) -> Option<String>) -> Option<usize> {
    use std::collections::BTreeMap;
    let core = |cpu: usize| {
        let capacity = file(cpu, "cpu_capacity").and_then(|text| text.trim().parse::<u32>().ok());
        Some((file(cpu, "topology/thread_siblings_list")?, capacity.unwrap_or(1024)))
    };
    let cores: BTreeMap<String, u32> = cpus.map(core).collect::<Option<_>>()?;
    let fastest = *cores.values().max()?;
    Some(cores.values().filter(|capacity| **capacity >= fastest / 2).count())
}

/// Bytes of memory that are free, or would be soon, where the system tells.
pub(crate) fn available_memory() -> Option<u64> {
    if cfg!(not(any(target_os = "linux", target_os = "android"))) {
        return None;
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Keeps mapped pages in memory; the error is the system's.
pub(crate) fn lock(map: &Mmap) -> std::io::Result<()> {
    #[cfg(unix)]
    return map.lock();
    #[cfg(not(unix))]
    {
        let _ = map;
        Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
    }
}

#[cfg(test)]
mod tests {
    use super::count_cores;

    #[test]
    fn cores_are_counted_once() {
        let siblings = |cpu: usize, file: &str| {
            let known = file == "topology/thread_siblings_list" && cpu < 4;
            known.then(|| if cpu.is_multiple_of(2) { "0,2\n".to_owned() } else { "1,3\n".to_owned() })
        };
        assert_eq!(count_cores(0..4, siblings), Some(2));
        assert_eq!(count_cores([0, 2].into_iter(), siblings), Some(1));
        assert_eq!(count_cores([0, 1].into_iter(), siblings), Some(2));
        assert_eq!(count_cores([0, 4].into_iter(), siblings), None, "an unknown CPU");
        assert_eq!(count_cores(std::iter::empty(), siblings), None);
    }

    /// Four Cortex-A55 and four Cortex-A76, as an RK3588 has them.
    #[test]
    fn slow_cores_do_not_count_beside_fast_ones() {
        let file = |cpu: usize, file: &str| {
            Some(if file == "cpu_capacity" {
                (if cpu < 4 { "414\n" } else { "1024\n" }).to_owned()
            } else {
                format!("{cpu}\n")
            })
        };
        assert_eq!(count_cores(0..8, file), Some(4));
        assert_eq!(count_cores(0..5, file), Some(1));
        assert_eq!(count_cores(0..4, file), Some(4), "nothing but slow ones");
    }
}
