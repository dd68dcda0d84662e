//! What users and the cluster say, parsed into values that cannot be wrong.
