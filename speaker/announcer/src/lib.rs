//! Who answers for a VIP and what it says on the wire, as a machine without input or output.
