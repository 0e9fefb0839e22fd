//! tidegate-session
