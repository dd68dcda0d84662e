//! The objects of a list, one after the other as their octets arrive.

/// Cuts the JSON of a list into its items: pure, fed with whatever pieces the network delivers.
///
/// A list of a hundred thousand objects is a hundred megabytes. Nobody needs more of it at once than one object.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// Octets of the item that is not complete, or of a key of the list itself.
    current: Vec<u8>,
    /// The list without its items.
    rest: Vec<u8>,
    place: Place,
    /// How many braces and brackets are open.
    depth: u32,
    text: Text,
}

/// Where in the list we are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Place {
    /// Outside the items; whether the last text at this depth was the key `items`.
    #[default]
    List,
    AfterKey,
    Items,
}

/// Where in a text we are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Text {
    #[default]
    Outside,
    Inside,
    /// Behind a backslash.
    Escaped,
}

impl Items {
    /// Takes octets in; `each` gets every item that they complete, as JSON.
    pub(super) fn take(&mut self, octets: &[u8], mut each: impl FnMut(&[u8])) {
        for &octet in octets {
            if self.place == Place::Items {
                self.take_of_items(octet, &mut each);
            } else {
                self.take_of_list(octet);
            }
        }
    }

    /// The list without its items, once all octets were taken in.
    pub(super) fn rest(&self) -> &[u8] {
        &self.rest
    }

    fn take_of_list(&mut self, octet: u8) {
        self.rest.push(octet);
        let was = self.text;
        self.follow(octet);
        match (was, self.text, octet) {
            // The quote that ends a text of the list itself, which may be a key.
            (Text::Inside, Text::Outside, _) if self.depth == 1 => {
                let is_items = self.rest.ends_with(b"\"items\"");
                self.place = if is_items {
                    Place::AfterKey
                } else {
                    Place::List
                };
            }
            (_, Text::Outside, b'[') if self.place == Place::AfterKey && self.depth == 2 => {
                self.place = Place::Items;
            }
            (_, Text::Outside, b':' | b' ' | b'\t' | b'\r' | b'\n') => {}
            _ => self.place = Place::List,
        }
    }

    fn take_of_items(&mut self, octet: u8, each: &mut impl FnMut(&[u8])) {
        self.follow(octet);
        if self.depth == 1 {
            self.current.clear();
            self.place = Place::List;
            self.rest.push(octet);
            return;
        }
        // Between items there are commas and spaces.
        if !(self.current.is_empty() && matches!(octet, b',' | b' ' | b'\t' | b'\r' | b'\n')) {
            self.current.push(octet);
        }
        if self.depth == 2 && octet == b'}' && self.text == Text::Outside {
            each(&self.current);
            self.current.clear();
        }
    }

    fn follow(&mut self, octet: u8) {
        self.text = match (self.text, octet) {
            (Text::Inside, b'\\') => Text::Escaped,
            (Text::Inside, b'"') => Text::Outside,
            (Text::Outside, b'"') => Text::Inside,
            (Text::Escaped, _) => Text::Inside,
            (text, _) => text,
        };
        if self.text == Text::Outside {
            match octet {
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn cut(list: &str, piece: usize) -> (Vec<String>, String) {
        let mut items = Items::default();
        let mut found = Vec::new();
        for piece in list.as_bytes().chunks(piece) {
            items.take(piece, |item| {
                found.push(String::from_utf8_lossy(item).into_owned());
            });
        }
        (found, String::from_utf8_lossy(items.rest()).into_owned())
    }

    #[test]
    fn what_is_cut_out_and_what_remains() {
        for (list, expected, rest) in [
            (
                r#"{"items":[{"a":1},{"b":[2]}],"kind":"L"}"#,
                &[r#"{"a":1}"#, r#"{"b":[2]}"#][..],
                r#"{"items":[],"kind":"L"}"#,
            ),
            (
                r#"{"metadata":{"items":[1]},"items": [ {"a":"]}\"{"} ] }"#,
                &[r#"{"a":"]}\"{"}"#],
                r#"{"metadata":{"items":[1]},"items": [] }"#,
            ),
            (
                r#"{"kind":"items","items":null}"#,
                &[],
                r#"{"kind":"items","items":null}"#,
            ),
            (
                r#"{"kind":"items","other":[{"a":1}]}"#,
                &[],
                r#"{"kind":"items","other":[{"a":1}]}"#,
            ),
            (r#"{"items":[]}"#, &[], r#"{"items":[]}"#),
            ("]}]}", &[], "]}]}"),
        ] {
            for piece in [1, 3, 1000] {
                let (found, left) = cut(list, piece);
                assert_eq!(
                    (found.as_slice(), left.as_str()),
                    (
                        expected
                            .iter()
                            .map(ToString::to_string)
                            .collect::<Vec<_>>()
                            .as_slice(),
                        rest
                    ),
                    "{list} by {piece}"
                );
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<i32>().prop_map(|number| json!(number)),
            "[a-z\"\\\\{}\\[\\]:, ]{0,6}".prop_map(|text| json!(text))
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| json!(items)),
                proptest::collection::btree_map("(items|[a-c\"\\\\]{1,3})", inner, 0..4)
                    .prop_map(|fields| json!(fields)),
            ]
        })
    }

    proptest! {
        #[test]
        fn cutting_is_parsing(
            fields in proptest::collection::btree_map("(items|metadata|[a-c\"\\\\]{1,3})", any_json(), 0..4),
            items in proptest::collection::vec(proptest::collection::btree_map("[a-c]{1,2}", any_json(), 0..3), 0..4),
            piece in 1_usize..9,
            pretty: bool,
        ) {
            let mut list = json!(fields);
            list["items"] = json!(items);
            let text = if pretty { serde_json::to_string_pretty(&list).unwrap() } else { list.to_string() };
            let (found, rest) = cut(&text, piece);
            let found: Vec<Value> = found.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
            prop_assert_eq!(json!(found), json!(items));
            list["items"] = json!([]);
            prop_assert_eq!(serde_json::from_str::<Value>(&rest).unwrap(), list);
        }

        #[test]
        fn any_octets_are_taken(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            Items::default().take(&octets, |_| {});
        }
    }
}
