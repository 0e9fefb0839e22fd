//! tidegate-bench
