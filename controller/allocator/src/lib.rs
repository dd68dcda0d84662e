//! Which address each Service gets, and why not.
