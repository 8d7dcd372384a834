//! Output files that appear whole or not at all.

use std::io::Write;
use std::path::Path;

/// Writes `bytes` beside `path` and renames: on failure nothing is left under `path`, and what was there stays.
///
/// # Errors
/// When the system refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = sibling(path)?;
    file.write_all(bytes)?;
    persist(file, path)
}

/// A new file in the directory of `path`, removed unless it is handed to [`persist`].
///
/// # Errors
/// When the system refuses.
pub fn sibling(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let name = path.file_name().ok_or_else(|| std::io::Error::other("it names no file"))?;
    let prefix = format!(".{}.", name.to_string_lossy());
    tempfile::Builder::new().prefix(&prefix).suffix(".partial").tempfile_in(directory_of(path))
}

/// The directory that a path lies in: for a bare name the current one.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a complete file durable and gives it its name.
///
/// # Errors
/// When the system refuses; the file is then removed.
pub fn persist(file: tempfile::NamedTempFile, path: &Path) -> std::io::Result<()> {
    file.as_file().sync_all()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private; finished ones get the usual rights.
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}
