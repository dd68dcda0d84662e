//! kubectl foghorn: check, plan, why, status.
