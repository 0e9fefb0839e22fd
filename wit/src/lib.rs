//! tidegate-wit
