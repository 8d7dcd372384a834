//! What each operating system does in its own way.

use std::fs::File;
use std::path::Path;

/// The most physical memory that this process has held, in bytes, where the system tells.
pub fn peak_memory() -> Option<u64> {
    #[cfg(unix)]
    {
        use nix::sys::resource::{UsageWho, getrusage};
        // macOS counts bytes, the others kilobytes.
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        u64::try_from(getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss()).ok()?.checked_mul(unit)
    }
    #[cfg(not(unix))]
    None
}

/// Bytes that may be written into a directory, where the system tells.
pub fn free_space(directory: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let stat = nix::sys::statvfs::statvfs(directory).ok()?;
        // On some systems these are narrower.
        #[allow(clippy::unnecessary_cast)]
        Some((stat.blocks_available() as u64).saturating_mul(stat.fragment_size() as u64))
    }
    #[cfg(not(unix))]
    {
        let _ = directory;
        None
    }
}

/// Asks the system to begin to store what was written of a file. Advice only: where it is not taken, the end takes longer.
pub fn begin_to_store(file: &File, start: u64, bytes: u64) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let (Ok(start), Ok(bytes)) = (start.try_into(), bytes.try_into()) {
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        let _ = posix_fadvise(file, start, bytes, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (file, start, bytes);
}

/// Fills `bytes` from a place of a file that several threads read.
///
/// # Errors
/// When the file ends before, or cannot be read.
pub fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let (mut bytes, mut offset) = (bytes, offset);
        while !bytes.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => (bytes, offset) = (&mut bytes[count..], offset + count as u64),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Opens a file to read, without waiting for the other end of a pipe.
///
/// # Errors
/// When it cannot be opened.
pub fn open_at_once(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nix::fcntl::OFlag::O_NONBLOCK.bits());
    options.read(true).open(path)
}

/// Opens a regular file, or a link to one, to read. Anything else that bears its name (a pipe, a device) might never send a byte.
///
/// # Errors
/// When it cannot be opened, or is something else.
pub fn open_regular(path: &Path) -> std::io::Result<File> {
    let file = open_at_once(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_at_any_place() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"0123456789").unwrap();
        let mut bytes = [0; 4];
        read_exact_at(&file, &mut bytes, 3).unwrap();
        assert_eq!(&bytes, b"3456");
        assert_eq!(read_exact_at(&file, &mut bytes, 7).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        begin_to_store(&file, 0, 10);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_at_once(&pipe).is_ok());
        assert!(open_regular(&pipe).unwrap_err().to_string().contains("no regular file"));
        assert!(open_regular(folder.path()).is_err());
        std::fs::write(folder.path().join("file"), "text").unwrap();
        assert!(open_regular(&folder.path().join("file")).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn the_system_tells_of_memory_and_space() {
        let ballast = vec![1u8; 50 << 20];
        assert!(peak_memory().unwrap() > std::hint::black_box(&ballast).len() as u64);
        assert!(free_space(&std::env::temp_dir()).is_some());
        assert_eq!(free_space(Path::new("/no/such/place")), None);
    }
}
