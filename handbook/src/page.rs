//! A page of Markdown: its blocks, its words in code, its links.

use std::io;
use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::root;

/// A page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it is, from the root of the repository.
    pub path: String,
    text: String,
}

/// A piece of code in a page.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snippet {
    /// The page and the line where it begins.
    pub place: String,
    /// The word after the fence; nothing for words within a sentence.
    pub language: String,
    /// What it says.
    pub text: String,
}

impl Page {
    /// Reads a page.
    pub(crate) fn read(path: String) -> io::Result<Self> {
        let text = std::fs::read_to_string(root(&path))?;
        Ok(Self::of(path, text))
    }

    /// A page that is not of this repository.
    pub fn of(path: String, text: String) -> Self {
        Self { path, text }
    }

    /// The blocks of code.
    pub fn blocks(&self) -> Vec<Snippet> {
        let mut blocks: Vec<Snippet> = Vec::new();
        let mut is_inside = false;
        for (event, range) in self.events() {
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    is_inside = true;
                    let language = match kind {
                        CodeBlockKind::Fenced(language) => language.to_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    blocks.push(self.snippet(&range, language, String::new()));
                }
                Event::Text(text) if is_inside => {
                    if let Some(block) = blocks.last_mut() {
                        block.text.push_str(&text);
                    }
                }
                Event::End(TagEnd::CodeBlock) => is_inside = false,
                _ => {}
            }
        }
        blocks
    }

    /// Words in code within sentences and tables.
    pub fn spans(&self) -> Vec<Snippet> {
        let code = self.events().filter_map(|(event, range)| match event {
            Event::Code(text) => Some(self.snippet(&range, String::new(), text.to_string())),
            _ => None,
        });
        code.collect()
    }

    /// Where its links and pictures lead.
    pub fn links(&self) -> Vec<Snippet> {
        let links = self.events().filter_map(|(event, range)| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some(self.snippet(&range, String::new(), dest_url.to_string()))
            }
            _ => None,
        });
        links.collect()
    }

    fn events(&self) -> impl Iterator<Item = (Event<'_>, Range<usize>)> {
        Parser::new_ext(&self.text, Options::ENABLE_TABLES).into_offset_iter()
    }

    fn snippet(&self, range: &Range<usize>, language: String, text: String) -> Snippet {
        let before = self.text.get(..range.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Snippet {
            place: format!("{}:{line}", self.path),
            language,
            text,
        }
    }
}
