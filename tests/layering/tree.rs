//! Reads the source of a crate into a tree of modules: what each module defines, imports and names.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, UseTree};

/// The text of each file, by its path within `src`.
pub type Files = BTreeMap<String, String>;

/// The crate's root among [`Tree::modules`].
pub const ROOT: usize = 0;

/// What a name stands for inside a module.
pub enum Entry {
    /// A child module.
    Child(usize),
    /// An item defined in this file. Only a type or trait has names of its own (`Kind::Usage`).
    Item { has_names: bool },
    /// An import: its number, and the path behind it.
    Import { id: usize, path: Vec<String> },
}

pub struct Module {
    pub file: String,
    pub parent: usize,
    /// Whether it is compiled for unit tests alone.
    pub tests: bool,
    pub names: BTreeMap<String, Vec<Entry>>,
    /// Glob imports: their numbers, and the paths before `*`.
    pub globs: Vec<(usize, Vec<String>)>,
}

/// A path somewhere in the source of a module.
pub struct Mention {
    pub module: usize,
    /// The item of the file that it is part of: an `impl` is part of its type, an import of none.
    pub item: String,
    pub path: Vec<String>,
    pub line: usize,
}

#[derive(Default)]
pub struct Tree {
    pub modules: Vec<Module>,
    /// `*` as the last segment stands for a glob.
    pub mentions: Vec<Mention>,
    imports: usize,
}

impl Tree {
    /// The crate whose root is `lib.rs`. Panics if a file belongs to no module: no rule would see
    /// that file.
    pub fn new(files: &Files) -> Self {
        let mut tree = Self::default();
        tree.add("lib.rs", ROOT, false);
        let mut reader = Reader {
            files,
            tree: &mut tree,
            module: ROOT,
            file: "lib.rs".to_owned(),
            folder: String::new(),
            in_file: false,
            item: String::new(),
        };
        reader.file();
        let read: BTreeSet<_> = tree.modules.iter().map(|module| &module.file).collect();
        let unread: Vec<_> = files.keys().filter(|file| !read.contains(file)).collect();
        assert!(unread.is_empty(), "no module declares {unread:?}");
        tree
    }

    fn add(&mut self, file: &str, parent: usize, tests: bool) -> usize {
        let (file, names, globs) = (file.to_owned(), BTreeMap::new(), Vec::new());
        self.modules.push(Module { file, parent, tests, names, globs });
        self.modules.len() - 1
    }
}

/// Goes through the files of a crate, module by module.
struct Reader<'a> {
    files: &'a Files,
    tree: &'a mut Tree,
    module: usize,
    file: String,
    /// Where the files of child modules lie.
    folder: String,
    /// Whether the module at hand is written inside another one's file.
    in_file: bool,
    /// The item at hand.
    item: String,
}

impl Reader<'_> {
    fn file(&mut self) {
        let text = &self.files[&self.file];
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{}: {e}", self.file));
        for attribute in &parsed.attrs {
            self.visit_attribute(attribute);
        }
        self.items(&parsed.items);
    }

    fn items(&mut self, items: &[Item]) {
        for item in items {
            self.define(item);
            self.item = name_of(item);
            self.visit_item(item);
        }
    }

    fn define(&mut self, item: &Item) {
        let has_names = match item {
            Item::Const(_) | Item::Fn(_) | Item::Macro(_) | Item::Static(_) => false,
            Item::Enum(_) | Item::Struct(_) | Item::Trait(_) | Item::Type(_) | Item::Union(_) => {
                true
            }
            _ => return,
        };
        self.name(name_of(item), Entry::Item { has_names });
    }

    fn name(&mut self, name: String, entry: Entry) {
        self.tree.modules[self.module].names.entry(name).or_default().push(entry);
    }

    fn mention(&mut self, path: Vec<String>, line: usize) {
        let (module, item) = (self.module, self.item.clone());
        self.tree.mentions.push(Mention { module, item, path, line });
    }

    /// Takes in one import. Imports inside functions count as the whole module's.
    fn import(&mut self, mut path: Vec<String>, alias: &Ident) {
        self.tree.imports += 1;
        let id = self.tree.imports;
        let line = alias.span().start().line;
        let mut alias = alias.to_string();
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
            if alias == "self" {
                alias.clone_from(&path[path.len() - 1]);
            }
        }
        self.mention(path.clone(), line);
        if alias != "_" {
            self.name(alias, Entry::Import { id, path });
        }
    }

    fn imports(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(part) => self.imports(&part.tree, &with(&part.ident)),
            UseTree::Name(last) => self.import(with(&last.ident), &last.ident),
            UseTree::Rename(last) => self.import(with(&last.ident), &last.rename),
            UseTree::Group(group) => {
                for part in &group.items {
                    self.imports(part, before);
                }
            }
            UseTree::Glob(glob) => {
                self.tree.imports += 1;
                let id = self.tree.imports;
                self.tree.modules[self.module].globs.push((id, before.to_vec()));
                let path = [before, &["*".to_owned()]].concat();
                self.mention(path, glob.star_token.spans[0].start().line);
            }
        }
    }

    /// Looks for paths among the tokens of a macro or an attribute, `before` standing before each.
    fn scan(&mut self, tokens: TokenStream, before: &[String]) {
        let mut tokens = tokens.into_iter().peekable();
        // Whether the name to come is a method or field, or goes on with a path: `.name`, `>::name`.
        let mut goes_on = false;
        let mut last = ' ';
        while let Some(token) = tokens.next() {
            let name = match token {
                TokenTree::Ident(name) => name,
                TokenTree::Group(group) => {
                    self.scan(group.stream(), before);
                    last = ' ';
                    goes_on = false;
                    continue;
                }
                TokenTree::Punct(punct) => {
                    goes_on = match punct.as_char() {
                        '.' => last != '.',
                        ':' => last == ':',
                        _ => false,
                    };
                    last = punct.as_char();
                    continue;
                }
                // `#[serde(with = "crate::volumes::card")]`
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    let text = text.trim_matches('"');
                    if text.starts_with("crate::") || text.starts_with("super::") {
                        self.scan(text.parse().unwrap_or_default(), before);
                    }
                    continue;
                }
            };
            let line = name.span().start().line;
            let mut path = [before, &[name.to_string()]].concat();
            let mut whole = true;
            while let Some(TokenTree::Punct(punct)) = tokens.peek() {
                if punct.as_char() != ':' || punct.spacing() != proc_macro2::Spacing::Joint {
                    break;
                }
                tokens.next();
                tokens.next();
                match tokens.peek() {
                    Some(TokenTree::Ident(name)) => path.push(name.to_string()),
                    Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                        self.scan(group.stream(), &path);
                        whole = false;
                    }
                    _ => break,
                }
                tokens.next();
            }
            if whole && !goes_on {
                self.mention(path, line);
            }
            last = ' ';
            goes_on = false;
        }
    }

    /// The file of `mod name;`, which an attribute `#[path = "..."]` may give.
    fn file_of(&self, item: &syn::ItemMod) -> String {
        let given = item.attrs.iter().find_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) => Some(path.value()),
                _ => panic!("{}: a #[path] that is no string", self.file),
            },
            _ => None,
        });
        if let Some(given) = given {
            let beside = self.file.rsplit_once('/').map_or("", |(folder, _)| folder);
            return join(if self.in_file { &self.folder } else { beside }, &given);
        }
        let name = item.ident.to_string();
        let places = ["", "/mod"].map(|end| join(&self.folder, &format!("{name}{end}.rs")));
        let found = places.iter().find(|file| self.files.contains_key(*file));
        found.unwrap_or_else(|| panic!("{}: no file for mod {name}", self.file)).clone()
    }
}

fn name_of(item: &Item) -> String {
    let name = match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Impl(item) => match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| &last.ident),
            _ => None,
        },
        Item::Macro(item) => item.ident.as_ref(),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    };
    name.map(Ident::to_string).unwrap_or_default()
}

fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let list = attribute.meta.require_list();
    list.is_ok_and(|list| list.path.is_ident("cfg") && list.tokens.to_string() == "test")
}

fn join(folder: &str, name: &str) -> String {
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        for attribute in &item.attrs {
            self.visit_attribute(attribute);
        }
        let name = item.ident.to_string();
        let file = if item.content.is_some() { self.file.clone() } else { self.file_of(item) };
        let tests = self.tree.modules[self.module].tests || item.attrs.iter().any(is_for_tests);
        let child = self.tree.add(&file, self.module, tests);
        self.name(name.clone(), Entry::Child(child));
        let stem = file.strip_suffix("/mod.rs").or_else(|| file.strip_suffix(".rs"));
        let folder = match &item.content {
            Some(_) => join(&self.folder, &name),
            None => stem.unwrap_or(&file).to_owned(),
        };
        let in_file = item.content.is_some();
        let (files, tree, module, none) = (self.files, &mut *self.tree, child, String::new());
        let mut reader = Reader { files, tree, module, file, folder, in_file, item: none };
        match &item.content {
            Some((_, items)) => reader.items(items),
            None => reader.file(),
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.imports(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let line = path.segments.first().map_or(0, |first| first.ident.span().start().line);
            self.mention(names, line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.scan(item.tokens.clone(), &[]);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.scan(list.tokens.clone(), &[]);
    }
}
