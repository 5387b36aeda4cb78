//! The memory files of rsmp in other processes, by way of `/proc/PID/fd`: found and opened for reading, nothing more.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::sys::memory;

/// A memory file that a process has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFile {
    pub descriptor: u32,
    /// "rsmp-arena" and the like.
    pub name: String,
    /// Tells the file from every other one, in whatever process it is open.
    pub identity: u64,
}

fn path(pid: u32, descriptor: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/fd/{descriptor}"))
}

fn failure(error: &io::Error) -> Error {
    Error::os("look at a process", Errno::from_io_error(error).unwrap_or(Errno::IO))
}

/// The memory files of rsmp that `pid` has open.
pub fn memory_files(pid: u32) -> Result<Vec<MemoryFile>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| failure(&error))? {
        let Some(descriptor) = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse().ok()) else { continue };
        let Ok(target) = std::fs::read_link(path(pid, descriptor)) else { continue };
        let name = target.to_str().and_then(|target| target.strip_prefix("/memfd:")?.strip_suffix(" (deleted)"));
        let Some(name) = name.filter(|name| name.starts_with("rsmp-")) else { continue };
        // It may have been closed meanwhile.
        let Ok(file) = open(pid, descriptor) else { continue };
        found.push(MemoryFile { descriptor, name: name.to_owned(), identity: memory::identity(&file)? });
    }
    Ok(found)
}

/// Opens a file of `pid` for reading.
pub fn open(pid: u32, descriptor: u32) -> Result<File> {
    File::open(path(pid, descriptor)).map_err(|error| failure(&error))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn finds_the_files_of_a_process_by_name() {
        let file = memory::create("rsmp-proc-test").expect("a file");
        let found = memory_files(std::process::id()).expect("this process");
        let mine = found.iter().find(|found| found.descriptor == file.as_raw_fd().unsigned_abs()).expect("the file");
        assert_eq!(
            (mine.name.as_str(), mine.identity),
            ("rsmp-proc-test", memory::identity(&file).expect("its number"))
        );
        let again = open(std::process::id(), mine.descriptor).expect("it opens");
        assert_eq!(memory::identity(&again), memory::identity(&file));
    }

    #[test]
    fn there_is_no_process_zero() {
        assert!(memory_files(0).is_err());
    }
}
