//! Errors of the client as sentences, and what callers can decide on.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};
use sillage_core::{Error, ErrorKind};

pub(crate) fn invalid(what: impl Into<String>) -> Error {
    Error::invalid(what)
}

/// What kind of thing the broker or the client reports.
pub(crate) fn kind(code: Code) -> ErrorKind {
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => ErrorKind::Denied,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::GroupIdNotFound => ErrorKind::NotFound,
        Code::SSL
        | Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidTopic
        | Code::InvalidArgument
        | Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::PolicyViolation => ErrorKind::Invalid,
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::NotImplemented => {
            ErrorKind::Unsupported
        }
        Code::BrokerTransportFailure
        | Code::Resolve
        | Code::AllBrokersDown
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::MessageTimedOut
        | Code::WaitingForCoordinator
        | Code::CoordinatorNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::NotCoordinator
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::RequestTimedOut
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::NetworkException
        | Code::RebalanceInProgress => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    }
}

/// The error with what was being done, and where.
pub(crate) fn describe(what: impl Into<String>, error: KafkaError) -> Error {
    let kind = match (&error, error.rdkafka_error_code()) {
        (KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_), _) => ErrorKind::Invalid,
        (_, Some(code)) => kind(code),
        (_, None) => ErrorKind::Other,
    };
    Error::new(kind, what).because(error)
}
