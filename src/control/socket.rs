//! The socket file, and lines over it. A socket's path may have 107 bytes at most and data directories are longer
//! than that at times: both sides go through the directory's descriptor, whose path is always short.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use tokio::net::{UnixListener, UnixStream};

use super::{ControlError, LINE_SIZE_BYTES_MAX, SOCKET_NAME};

/// Binds the socket of a directory. One that a crashed server left behind is replaced: the store's lock on the
/// directory guarantees that nobody serves it any more.
pub(super) fn bind(data_dir: &Path) -> Result<UnixListener, ControlError> {
    let path = data_dir.join(SOCKET_NAME);
    let error = |cause| ControlError::Bind { data_dir: data_dir.to_owned(), cause };
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            fs::remove_file(&path).map_err(error)?;
        }
        Ok(_) => return Err(ControlError::NotASocket { path }),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(error(cause)),
    }
    let directory = File::open(data_dir).map_err(error)?;
    let listener = UnixListener::bind(short_path(&directory, data_dir)).map_err(error)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(error)?;
    Ok(listener)
}

/// Connects to the server of a directory.
pub(super) async fn connect(data_dir: &Path) -> Result<UnixStream, ControlError> {
    let error = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NoServer { data_dir: data_dir.to_owned() }
        }
        _ => ControlError::Io { data_dir: data_dir.to_owned(), cause },
    };
    let directory = File::open(data_dir).map_err(error)?;
    UnixStream::connect(short_path(&directory, data_dir)).await.map_err(error)
}

/// Valid while `directory` is open. Where there is no `/proc`, the plain path has to be short enough.
fn short_path(directory: &File, data_dir: &Path) -> PathBuf {
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    if by_descriptor.exists() { by_descriptor.join(SOCKET_NAME) } else { data_dir.join(SOCKET_NAME) }
}

/// What reading a line came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A whole one, without its end.
    Whole(Vec<u8>),
    /// The peer closed, perhaps inside a line.
    Closed,
    /// More bytes than are accepted; where the next line starts is unknown.
    TooLong,
}

/// Not cancellation safe: what was read of a line is lost.
pub(super) async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Line> {
    let mut line = Vec::new();
    let mut bounded = reader.take(LINE_SIZE_BYTES_MAX as u64 + 1);
    bounded.read_until(b'\n', &mut line).await?;
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Line::Whole(line));
    }
    Ok(if line.len() > LINE_SIZE_BYTES_MAX { Line::TooLong } else { Line::Closed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded() {
        let full = [vec![b'x'; LINE_SIZE_BYTES_MAX], b"\nrest".to_vec()].concat();
        let mut reader = full.as_slice();
        let whole = Line::Whole(vec![b'x'; LINE_SIZE_BYTES_MAX]);
        assert_eq!(read_line(&mut reader).await.unwrap(), whole);
        assert_eq!(read_line(&mut reader).await.unwrap(), Line::Closed);
        assert_eq!(read_line(&mut reader).await.unwrap(), Line::Closed);
        let endless = vec![b'x'; LINE_SIZE_BYTES_MAX + 2];
        assert_eq!(read_line(&mut endless.as_slice()).await.unwrap(), Line::TooLong);
    }
}
