//! tidegate-plugin-sdk
