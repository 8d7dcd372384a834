//! Output files that appear whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{Error, Result, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Most symbolic links that are followed in a row.
const MOST_LINKS: usize = 40;

/// Writes `bytes` as [`OutputFile`] does: on failure nothing is left under `path`, and what was there stays.
///
/// # Errors
/// When the system refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// A file that is being written. It lies beside its final path, gets that path when it is finished, and is removed otherwise.
/// Symbolic links are followed; devices and pipes are written as they are.
#[derive(Debug)]
pub struct OutputFile(Place);

#[derive(Debug)]
enum Place {
    Beside(NamedTempFile, PathBuf),
    Itself(File),
}

impl OutputFile {
    /// A file that will appear at `path`.
    ///
    /// # Errors
    /// When the system refuses, or `path` is a directory.
    pub fn create(path: &Path) -> Result<Self> {
        let path = follow_links(path)?;
        if is_stream(&path) {
            // Appended, since a shell's `>>` may have opened it.
            return Ok(Self(Place::Itself(OpenOptions::new().append(true).open(path)?)));
        }
        let path = destination(&path)?;
        let name = path.file_name().ok_or_else(|| Error::other("it names no file"))?;
        let (prefix, directory) = (format!(".{}.", name.to_string_lossy()), directory_of(&path));
        directory.metadata()?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        // The system's message would name the temporary file.
        let file = builder.tempfile_in(directory).map_err(|error| Error::from(error.kind()))?;
        if let Ok(replaced) = path.metadata() {
            file.as_file().set_permissions(replaced.permissions())?;
        }
        Ok(Self(Place::Beside(file, path)))
    }

    /// Fails where [`create`](Self::create) would, and leaves no file. Devices and pipes are not opened.
    ///
    /// # Errors
    /// As there.
    pub fn probe(path: &Path) -> Result<()> {
        // A pipe that is opened and closed is a finished, empty file to its reader.
        if is_stream(&follow_links(path)?) { Ok(()) } else { Self::create(path).map(drop) }
    }

    /// The file.
    pub fn as_file(&self) -> &File {
        match &self.0 {
            Place::Beside(file, _) => file.as_file(),
            Place::Itself(file) => file,
        }
    }

    /// Makes the complete file durable and gives it its name.
    ///
    /// # Errors
    /// When the system refuses; the file is then removed.
    pub fn finish(self) -> Result<()> {
        let Place::Beside(file, path) = self.0 else { return Ok(()) };
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        // Some file systems do not store directories on demand; the file has its name all the same.
        let _ = File::open(directory_of(&path)).and_then(|directory| directory.sync_all());
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.as_file().write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.as_file().flush()
    }
}

/// Where a file of that name lies, or will lie, behind symbolic links.
///
/// # Errors
/// When there is something that is no regular file, or links lead nowhere.
pub fn destination(path: &Path) -> Result<PathBuf> {
    let path = follow_links(path)?;
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(Error::other("it is a directory; name a file")),
        _ if is_stream(&path) => Err(Error::other("it is a device, a pipe or open already; name a file")),
        _ => Ok(path),
    }
}

/// Whether both lead to one file that exists.
pub fn same_file(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// The path of a file beside another one: its name with an ending behind it.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The directory that a path lies in: for a bare name the current one.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether it is there and takes bytes as they come: a device, a pipe, or what a process has open (/dev/stdout).
fn is_stream(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| !found.is_dir() && (!found.is_file() || is_open_file(path)))
}

/// Whether /proc shows it as one of the files that a process has open: a link whose target is but a name.
fn is_open_file(path: &Path) -> bool {
    directory_of(path).canonicalize().is_ok_and(|directory| directory.starts_with("/proc"))
}

/// What a path's symbolic links lead to, which need not exist.
fn follow_links(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(target) = path.read_link() else { return Ok(path) };
        if is_open_file(&path) {
            return Ok(path);
        }
        path = directory_of(&path).join(target);
    }
    Err(Error::other("its symbolic links lead in a circle"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert!(names(directory.path()).is_empty(), "nothing is left of it");
        write_whole(&path, b"whole").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(directory.path()), ["out"]);
        assert!(write_whole(directory.path(), b"").unwrap_err().to_string().contains("is a directory"));
        let missing = directory.path().join("missing/out");
        assert_eq!(write_whole(&missing, b"").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn a_replaced_file_keeps_its_rights_and_links_stay() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link, dangling, circle] =
            ["out", "link", "dangling", "circle"].map(|name| directory.path().join(name));
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        symlink("out", &link).unwrap();
        symlink("new", &dangling).unwrap();
        symlink("circle", &circle).unwrap();
        write_whole(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        write_whole(&dangling, b"behind a link").unwrap();
        assert_eq!(std::fs::read(directory.path().join("new")).unwrap(), b"behind a link");
        assert!(link.is_symlink() && dangling.is_symlink());
        assert!(same_file(&link, &path) && !same_file(&link, &dangling));
        write_whole(&circle, b"").unwrap_err();
        assert_eq!(names(directory.path()), ["circle", "dangling", "link", "new", "out"]);
    }

    /// A file that this process has open, as a shell's `>> log` is opened for one: it grows, under its name.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_open_is_written_at_its_end() {
        use std::os::fd::AsRawFd;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "before, ").unwrap();
        let log = OpenOptions::new().append(true).open(&path).unwrap();
        for place in ["/dev/fd", "/proc/self/fd"] {
            let open = PathBuf::from(place).join(log.as_raw_fd().to_string());
            OutputFile::probe(&open).unwrap();
            write_whole(&open, b"behind, ").unwrap();
            assert!(destination(&open).is_err());
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"before, behind, behind, ");
    }

    /// A pipe, as a shell's `>(command)` is one: its reader gets the bytes, and it stays a pipe.
    #[test]
    fn pipes_are_written_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        write_whole(&pipe, b"bytes").unwrap();
        assert_eq!(reader.join().unwrap(), b"bytes");
        assert_eq!(names(directory.path()), ["pipe"]);
        assert!(destination(&pipe).unwrap_err().to_string().contains("pipe"));
    }
}
