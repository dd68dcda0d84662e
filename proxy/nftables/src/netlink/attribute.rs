//! Attributes: the type, length and value that everything in netlink is made of.

/// Octets of a message under construction.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    octets: Vec<u8>,
}

impl Writer {
    /// How many octets there are.
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// All octets.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }

    /// Octets as they are, padded to the alignment of netlink.
    pub fn raw(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
        self.align();
    }

    /// An attribute; its value is at most 64 KiB long.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
        self.octets.extend_from_slice(&length.to_ne_bytes());
        self.octets.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value);
    }

    /// A number in network order, as nf_tables has nearly all of them.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// The same, twice as long.
    pub fn number64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A text with the zero at its end.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut octets = Vec::with_capacity(value.len() + 1);
        octets.extend_from_slice(value.as_bytes());
        octets.push(0);
        self.attribute(kind, &octets);
    }

    /// An attribute that holds others.
    pub fn nested(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let start = self.octets.len();
        self.octets.extend_from_slice(&[0; HEADER]);
        content(self);
        let length = u16::try_from(self.octets.len() - start).unwrap_or(u16::MAX);
        let [low, high] = length.to_ne_bytes();
        let [kind_low, kind_high] = (kind | NESTED).to_ne_bytes();
        self.overwrite(start, &[low, high, kind_low, kind_high]);
    }

    /// Replaces octets that are there already.
    pub fn overwrite(&mut self, start: usize, octets: &[u8]) {
        if let Some(place) = self.octets.get_mut(start..start + octets.len()) {
            place.copy_from_slice(octets);
        }
    }

    fn align(&mut self) {
        let aligned = self.octets.len().next_multiple_of(ALIGNMENT);
        self.octets.resize(aligned, 0);
    }
}

/// The attributes in these octets; what is cut off ends them.
pub fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = octets.first_chunk::<HEADER>()?;
        let [low, high, kind_low, kind_high] = *header;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let kind = u16::from_ne_bytes([kind_low, kind_high]) & !(NESTED | NETWORK_ORDER);
        let value = octets.get(HEADER..length)?;
        octets = octets
            .get(length.next_multiple_of(ALIGNMENT)..)
            .unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this type.
pub fn find(octets: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(octets)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// A number in network order.
pub fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*value.first_chunk()?))
}

/// The number in the first attribute of this type.
pub fn find_number(octets: &[u8], kind: u16) -> Option<u32> {
    number(find(octets, kind)?)
}

/// A text, up to the zero at its end.
pub fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|&octet| octet == 0);
    std::str::from_utf8(value.get(..end.unwrap_or(value.len()))?).ok()
}

/// The text in the first attribute of this type.
pub fn find_text(octets: &[u8], kind: u16) -> Option<&str> {
    text(find(octets, kind)?)
}

const ALIGNMENT: usize = 4;
const HEADER: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// `NLA_F_NET_BYTEORDER`.
const NETWORK_ORDER: u16 = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_padded_and_its_length_is_not() {
        let mut writer = Writer::default();
        writer.text(3, "pick-3");
        assert_eq!(writer.into_octets(), *b"\x0b\0\x03\0pick-3\0\0");
    }

    #[test]
    fn a_nested_attribute_holds_others() {
        let mut writer = Writer::default();
        writer.nested(4, |writer| {
            writer.number(1, 3);
            writer.number(2, 0xffff_ff9c);
        });
        let octets = writer.into_octets();
        assert_eq!(
            octets,
            *b"\x14\0\x04\x80\x08\0\x01\0\0\0\0\x03\x08\0\x02\0\xff\xff\xff\x9c"
        );
        let inside = find(&octets, 4).unwrap();
        assert_eq!(find_number(inside, 2), Some(0xffff_ff9c));
        assert_eq!(find_number(inside, 7), None);
    }

    #[test]
    fn rubbish_ends_the_attributes() {
        for octets in [
            &b"\x03"[..],
            b"\x02\0\x01\0",
            b"\xff\xff\x01\0abc",
            b"\0\0\0\0",
        ] {
            assert_eq!(attributes(octets).count(), 0, "{octets:?}");
        }
    }
}
