//! The real programs in a lab of network namespaces, asked as a client would ask.
