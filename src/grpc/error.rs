//! Every failure with the status that clients know it by: the one table of this front end (`atomix.md` §3, §8.7).

use tonic::Status;

use crate::engine::StoreError;
use crate::engine::maps::MapError;

/// The status of a mutation that failed.
pub(super) fn status(error: &MapError) -> Status {
    let text = error.to_string();
    match error {
        MapError::MapNotFound => Status::not_found(text),
        MapError::OptimisticLockFailure(_) => Status::permission_denied(text),
        MapError::KeyElsewhere { .. }
        | MapError::KeyTooLarge { .. }
        | MapError::ValueTooLarge { .. }
        | MapError::NameTooLarge { .. }
        | MapError::DigestOutOfRange => Status::invalid_argument(text),
        // It was certainly not begun.
        MapError::Busy => Status::unavailable(text),
        MapError::NumbersExhausted | MapError::OtherPartitions { .. } => Status::failed_precondition(text),
        MapError::Interrupted => Status::unknown(text),
        MapError::Store(error) => store_status(error),
    }
}

/// The status of a read that failed: there is no outcome that could be unknown.
pub(super) fn read_status(error: &MapError) -> Status {
    match error {
        MapError::Store(StoreError::Closed) => Status::unavailable(error.to_string()),
        MapError::Store(StoreError::Engine { .. }) => Status::internal(error.to_string()),
        error => status(error),
    }
}

fn store_status(error: &StoreError) -> Status {
    let text = error.to_string();
    match error {
        error if error.is_disk_full() => Status::resource_exhausted(text),
        StoreError::ReadOnly { .. } => Status::unavailable(text),
        // The write may be durable or not.
        StoreError::Closed | StoreError::Engine { .. } => Status::unknown("outcome unknown"),
        StoreError::TooLarge { .. } => Status::invalid_argument(text),
        StoreError::Crowded { .. } => Status::unavailable(text),
        StoreError::Damaged { .. } => Status::data_loss(text),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::domain::map::OptimisticLockFailure;

    #[test]
    fn every_failure_has_the_status_of_the_specification() {
        let engine = |reason: &str| MapError::Store(StoreError::Engine { reason: reason.into() });
        let full = "Io(No space left on device (os error 28))";
        for (error, code, text) in [
            (MapError::MapNotFound, Code::NotFound, "map not found"),
            (OptimisticLockFailure.into(), Code::PermissionDenied, "optimistic lock failure"),
            (MapError::KeyElsewhere { home: 3 }, Code::InvalidArgument, "the key belongs to partition 3"),
            (engine("I/O error"), Code::Unknown, "outcome unknown"),
            (MapError::Interrupted, Code::Unknown, "outcome unknown"),
            (MapError::Store(StoreError::Closed), Code::Unknown, "outcome unknown"),
            (MapError::Busy, Code::Unavailable, "the partition is busy"),
        ] {
            let status = status(&error);
            assert_eq!((status.code(), status.message()), (code, text), "{error:?}");
        }
        assert_eq!(status(&engine(full)).code(), Code::ResourceExhausted);
        let read_only = MapError::Store(StoreError::ReadOnly { reason: full.into() });
        assert_eq!(status(&read_only).code(), Code::ResourceExhausted);
        let read_only = MapError::Store(StoreError::ReadOnly { reason: "broken".into() });
        assert_eq!(status(&read_only).code(), Code::Unavailable);
        assert_eq!(read_status(&engine("I/O error")).code(), Code::Internal);
        assert_eq!(read_status(&MapError::Store(StoreError::Closed)).code(), Code::Unavailable);
        assert_eq!(read_status(&MapError::MapNotFound).code(), Code::NotFound);
    }
}
