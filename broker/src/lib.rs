//! tidegate-broker
