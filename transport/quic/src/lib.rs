//! tidegate-quic
