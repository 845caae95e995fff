//! The side of the command line.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::message::{decode, encode};
use super::socket::{Line, connect, read_line};
use super::{ControlError, ControlReply, ControlRequest, LINE_SIZE_BYTES_MAX};

/// Asks the server of a data directory one thing.
pub async fn request(data_dir: &Path, request: &ControlRequest) -> Result<ControlReply, ControlError> {
    request_stream(data_dir, request).await?.next().await
}

/// Asks for what is answered again and again.
pub async fn request_stream(data_dir: &Path, request: &ControlRequest) -> Result<Replies, ControlError> {
    let io = |cause| ControlError::Io { data_dir: data_dir.to_owned(), cause };
    let mut line = encode(request).map_err(|error| io(error.into()))?;
    if line.len() > LINE_SIZE_BYTES_MAX {
        return Err(ControlError::LineTooLong);
    }
    line.push(b'\n');
    let mut stream = connect(data_dir).await?;
    stream.write_all(&line).await.map_err(io)?;
    Ok(Replies { reader: BufReader::new(stream), data_dir: data_dir.to_owned() })
}

/// The answers to a request. Dropping them closes the connection.
#[derive(Debug)]
pub struct Replies {
    reader: BufReader<UnixStream>,
    data_dir: PathBuf,
}

impl Replies {
    /// The next answer.
    ///
    /// # Errors
    /// When the server closes the connection, or sends no answer.
    pub async fn next(&mut self) -> Result<ControlReply, ControlError> {
        let io = |cause| ControlError::Io { data_dir: self.data_dir.clone(), cause };
        match read_line(&mut self.reader).await.map_err(io)? {
            Line::Whole(line) => decode(&line).map_err(|reason| ControlError::BadReply { reason }),
            Line::TooLong => Err(ControlError::LineTooLong),
            Line::Closed => Err(io(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
