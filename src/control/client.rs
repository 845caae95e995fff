//! The side of the command line.

use std::path::Path;

use tokio::io::{AsyncWriteExt, BufReader};

use super::message::{decode, encode};
use super::socket::{Line, connect, read_line};
use super::{ControlError, ControlReply, ControlRequest, LINE_SIZE_BYTES_MAX};

/// Asks the server of a data directory one thing.
pub async fn request(data_dir: &Path, request: &ControlRequest) -> Result<ControlReply, ControlError> {
    let io = |cause| ControlError::Io { data_dir: data_dir.to_owned(), cause };
    let mut line = encode(request).map_err(|error| io(error.into()))?;
    if line.len() > LINE_SIZE_BYTES_MAX {
        return Err(ControlError::LineTooLong);
    }
    line.push(b'\n');
    let mut stream = connect(data_dir).await?;
    stream.write_all(&line).await.map_err(io)?;
    match read_line(&mut BufReader::new(stream)).await.map_err(io)? {
        Line::Whole(line) => decode(&line).map_err(|reason| ControlError::BadReply { reason }),
        Line::TooLong => Err(ControlError::LineTooLong),
        Line::Closed => Err(io(std::io::ErrorKind::UnexpectedEof.into())),
    }
}
