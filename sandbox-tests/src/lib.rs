//! tidegate-sandbox-tests
