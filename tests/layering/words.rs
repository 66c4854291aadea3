//! Words that may stand in some places only. Comments and strings do not count.

use proc_macro2::{TokenStream, TokenTree};

use super::tree::Files;

/// Words, and the files or folders where they may stand; `*` stands for anything.
pub type Words<'a> = (&'a [&'a str], &'a [&'a str]);

/// The tokens of a source, those in brackets too.
pub fn tokens(text: &str) -> Vec<TokenTree> {
    fn flatten(tokens: TokenStream, flat: &mut Vec<TokenTree>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => flatten(group.stream(), flat),
                token => flat.push(token),
            }
        }
    }
    let mut flat = Vec::new();
    flatten(text.parse().unwrap(), &mut flat);
    flat
}

fn lies_in(file: &str, place: &str) -> bool {
    match place.split_once('*') {
        Some((start, end)) => file.starts_with(start) && file.ends_with(end),
        None => file == place || file.strip_prefix(place).is_some_and(|rest| rest.starts_with('/')),
    }
}

/// Where words stand that may not, and places that have none of the words allowed to them.
pub fn misplaced(files: &Files, table: &[Words<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (words, places) in table {
        let mut idle: Vec<_> = places.iter().collect();
        for (file, text) in files {
            let tokens = tokens(text);
            let named = tokens.iter().filter_map(|token| match token {
                TokenTree::Ident(name) => Some((name.to_string(), name.span().start().line)),
                _ => None,
            });
            for (name, line) in named.filter(|(name, _)| words.contains(&name.as_str())) {
                idle.retain(|place| !lies_in(file, place));
                if !places.iter().any(|place| lies_in(file, place)) {
                    wrong.push(format!("{file}:{line}: {name}"));
                }
            }
        }
        wrong.extend(idle.iter().map(|place| format!("{place} needs none of {words:?}")));
    }
    wrong
}
