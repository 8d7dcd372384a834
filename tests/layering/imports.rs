//! What the files of a crate import from each other, read from their syntax.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::Visit;

/// Names of modules from the crate's root down.
type ModulePath = Vec<String>;

/// A crate's files, and for each the files whose items it names. Code that only tests see does not count.
pub(crate) struct Imports {
    /// For each file, relative to the crate's folder.
    pub(crate) edges: BTreeMap<String, BTreeSet<String>>,
}

/// A module as its file declares it.
struct Module {
    file: String,
    items: Vec<syn::Item>,
}

impl Imports {
    /// Reads the crate whose root file is `root`.
    pub(crate) fn of(root: &Path) -> Self {
        let mut modules = BTreeMap::new();
        let folder = root.parent().expect("a file has a folder");
        load(root, folder, folder.to_owned(), ModulePath::new(), &mut modules);
        let edges = modules.values().map(|module| (module.file.clone(), BTreeSet::new())).collect();
        let mut imports = Self { edges };
        for (path, module) in &modules {
            let mut reader = Reader { modules: &modules, path, aliases: BTreeMap::new(), found: BTreeSet::new() };
            // Names first, whatever they stand before.
            for item in &module.items {
                if let syn::Item::Use(item) = item {
                    reader.names(&item.tree);
                }
            }
            module
                .items
                .iter()
                .filter(|item| !matches!(item, syn::Item::Mod(_)))
                .for_each(|item| reader.visit_item(item));
            let found = std::mem::take(&mut reader.found);
            let edges = imports.edges.get_mut(&module.file).expect("every file has an entry");
            edges.extend(found.into_iter().filter(|file| *file != module.file));
        }
        imports
    }

    /// Groups of files that import each other, directly or by way of others.
    pub(crate) fn circles(&self) -> Vec<BTreeSet<String>> {
        let reached: BTreeMap<&String, BTreeSet<&String>> =
            self.edges.keys().map(|from| (from, self.reach(from))).collect();
        let mut circles = BTreeSet::new();
        for (from, there) in &reached {
            let circle: BTreeSet<String> =
                there.iter().filter(|to| reached[**to].contains(from)).map(|to| (*to).clone()).collect();
            if !circle.is_empty() {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn reach<'a>(&'a self, from: &'a String) -> BTreeSet<&'a String> {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(file) = open.pop() {
            open.extend(self.edges[file].iter().filter(|to| reached.insert(*to)));
        }
        reached
    }

    /// The rooms (folders and files beside the crate's root) that each room imports from.
    pub(crate) fn rooms(&self) -> BTreeMap<String, BTreeSet<String>> {
        let room = |file: &str| file.split('/').next().unwrap_or(file).trim_end_matches(".rs").to_owned();
        let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (file, imported) in &self.edges {
            let from = room(file);
            let imported = imported.iter().map(|file| room(file)).filter(|to| *to != from);
            rooms.entry(from.clone()).or_default().extend(imported);
        }
        rooms
    }
}

/// Whether only tests see an item.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Meta>().is_ok_and(|meta| match meta {
                syn::Meta::Path(path) => path.is_ident("test"),
                syn::Meta::List(list) => list.path.is_ident("all") && list.tokens.to_string().contains("test"),
                syn::Meta::NameValue(_) => false,
            })
    })
}

/// Reads a file and the modules that it declares, which lie in `folder`.
fn load(
    file: &Path,
    crate_folder: &Path,
    folder: PathBuf,
    path: ModulePath,
    modules: &mut BTreeMap<ModulePath, Module>,
) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let name = file.strip_prefix(crate_folder).expect("a module lies in its crate").display().to_string();
    load_items(parsed.items, &Place { crate_folder, file: &name, folder }, path, modules);
}

/// Where items stand.
struct Place<'a> {
    crate_folder: &'a Path,
    /// The file, relative to that.
    file: &'a str,
    /// Where the files of modules lie that are declared there.
    folder: PathBuf,
}

fn load_items(items: Vec<syn::Item>, place: &Place<'_>, path: ModulePath, modules: &mut BTreeMap<ModulePath, Module>) {
    let Place { crate_folder, file, folder } = place;
    for item in &items {
        let syn::Item::Mod(module) = item else { continue };
        if is_for_tests(&module.attrs) {
            continue;
        }
        let name = module.ident.to_string();
        let mut path = path.clone();
        path.push(name.clone());
        match &module.content {
            Some((_, items)) => {
                let place = Place { folder: folder.join(&name), ..*place };
                load_items(items.clone(), &place, path, modules);
            }
            None => {
                let single = folder.join(format!("{name}.rs"));
                let file = if single.exists() { single } else { folder.join(&name).join("mod.rs") };
                load(&file, crate_folder, folder.join(&name), path, modules);
            }
        }
    }
    modules.insert(path, Module { file: (*file).to_owned(), items });
}

struct Reader<'a> {
    modules: &'a BTreeMap<ModulePath, Module>,
    path: &'a ModulePath,
    /// Modules of this crate by the names that they were imported under.
    aliases: BTreeMap<String, ModulePath>,
    found: BTreeSet<String>,
}

impl Reader<'_> {
    /// The module and the rest that a path of this crate names; none for other crates' paths and local names.
    fn resolve(&self, names: &[String]) -> Option<(ModulePath, Vec<String>)> {
        let (first, mut rest) = names.split_first()?;
        let mut at = match first.as_str() {
            "crate" | "$crate" => ModulePath::new(),
            "self" => self.path.clone(),
            "super" => self.path.split_last()?.1.to_vec(),
            name => {
                let child = [self.path.as_slice(), &[name.to_owned()]].concat();
                if self.modules.contains_key(&child) { child } else { self.aliases.get(name)?.clone() }
            }
        };
        while let Some((name, behind)) = rest.split_first() {
            let next = if name == "super" {
                at.split_last()?.1.to_vec()
            } else {
                [at.as_slice(), std::slice::from_ref(name)].concat()
            };
            if !self.modules.contains_key(&next) {
                break;
            }
            (at, rest) = (next, behind);
        }
        Some((at, rest.to_vec()))
    }

    /// The file that defines what a path names, behind any number of re-exports.
    fn note(&mut self, names: &[String]) {
        let Some((module, rest)) = self.resolve(names) else { return };
        let Some(name) = rest.first() else { return };
        if let Some(file) = self.definition(&module, name, 0) {
            self.found.insert(file);
        }
    }

    fn definition(&self, module: &ModulePath, name: &str, depth: usize) -> Option<String> {
        let here = self.modules.get(module)?;
        if depth > 8 {
            return Some(here.file.clone());
        }
        for item in &here.items {
            let syn::Item::Use(item) = item else { continue };
            let mut exported = Vec::new();
            flatten(&item.tree, &mut Vec::new(), &mut exported);
            for (path, as_name) in exported {
                if as_name != name && as_name != "*" {
                    continue;
                }
                let reader =
                    Reader { modules: self.modules, path: module, aliases: BTreeMap::new(), found: BTreeSet::new() };
                if let Some((target, rest)) = reader.resolve(&path) {
                    match rest.first() {
                        Some(inner) if as_name != "*" => return self.definition(&target, inner, depth + 1),
                        _ if as_name != "*" => return self.modules.get(&target).map(|module| module.file.clone()),
                        _ if self.defines(&target, name) => return self.definition(&target, name, depth + 1),
                        _ => {}
                    }
                }
            }
        }
        Some(here.file.clone())
    }

    fn defines(&self, module: &ModulePath, name: &str) -> bool {
        self.modules.get(module).is_some_and(|module| {
            module.items.iter().any(|item| match item {
                syn::Item::Const(item) => item.ident == name,
                syn::Item::Enum(item) => item.ident == name,
                syn::Item::Fn(item) => item.sig.ident == name,
                syn::Item::Static(item) => item.ident == name,
                syn::Item::Struct(item) => item.ident == name,
                syn::Item::Trait(item) => item.ident == name,
                syn::Item::Type(item) => item.ident == name,
                syn::Item::Macro(item) => item.ident.as_ref().is_some_and(|ident| ident == name),
                _ => false,
            })
        })
    }

    fn names(&mut self, tree: &syn::UseTree) {
        let mut imported = Vec::new();
        flatten(tree, &mut Vec::new(), &mut imported);
        for (path, name) in imported {
            if let Some((module, rest)) = self.resolve(&path)
                && rest.is_empty()
            {
                self.aliases.insert(name, module);
            }
        }
    }

    /// Paths in what the parser leaves as tokens: macros. `before` is what stands before the braces that the tokens were in.
    fn tokens(&mut self, tokens: TokenStream, before: &[String]) {
        let mut names: Vec<String> = before.to_vec();
        let mut colons = if before.is_empty() { 0 } else { 2 };
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if names.is_empty() || colons == 2 => {
                    names.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !names.is_empty() => colons += 1,
                TokenTree::Group(group) if colons == 2 && group.delimiter() == Delimiter::Brace => {
                    self.tokens(group.stream(), &std::mem::take(&mut names));
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ',' && !before.is_empty() => {
                    self.note(&names);
                    (names, colons) = (before.to_vec(), 2);
                }
                other => {
                    self.note(&std::mem::take(&mut names));
                    colons = 0;
                    match other {
                        TokenTree::Ident(ident) => names.push(ident.to_string()),
                        TokenTree::Group(group) => self.tokens(group.stream(), &[]),
                        _ => {}
                    }
                }
            }
        }
        if names != before {
            self.note(&names);
        }
    }
}

/// Every path of a tree of imports, and the name it gets here (`*` for all).
fn flatten(tree: &syn::UseTree, before: &mut Vec<String>, out: &mut Vec<(Vec<String>, String)>) {
    match tree {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, out);
            before.pop();
        }
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, out)),
        syn::UseTree::Glob(_) => out.push(([before.as_slice(), &["*".to_owned()]].concat(), "*".to_owned())),
        syn::UseTree::Name(name) if name.ident == "self" => {
            out.push((before.clone(), before.last().cloned().unwrap_or_default()));
        }
        syn::UseTree::Name(name) => {
            let name = name.ident.to_string();
            out.push(([before.as_slice(), std::slice::from_ref(&name)].concat(), name));
        }
        syn::UseTree::Rename(rename) => {
            let name = rename.ident.to_string();
            let path = if name == "self" { before.clone() } else { [before.as_slice(), &[name]].concat() };
            out.push((path, rename.rename.to_string()));
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_for_tests(attributes) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // What a module only hands on is no import of its own.
        if !matches!(item.vis, syn::Visibility::Inherited) {
            return;
        }
        let mut imported = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut imported);
        for (path, name) in imported {
            if name == "*" {
                if let Some((module, _)) = self.resolve(&path) {
                    self.found.insert(self.modules[&module].file.clone());
                }
            } else {
                self.note(&path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            self.note(&names);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.tokens(item.tokens.clone(), &[]);
        syn::visit::visit_macro(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `a.rs` imports from files `b.rs` (with a module of its own, `b/inner.rs`) and `c.rs`, for the text of `a.rs`.
    fn imports(text: &str) -> BTreeSet<String> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("gemmule-layering-{}-{count}", std::process::id()));
        std::fs::create_dir_all(folder.join("b")).unwrap();
        let files = [
            ("lib.rs", "mod a; mod b; mod c; pub use c::Item;"),
            ("a.rs", text),
            ("b.rs", "mod inner; pub(crate) use inner::Deep; pub(crate) struct Flat;"),
            ("b/inner.rs", "pub(crate) struct Deep;"),
            ("c.rs", "pub struct Item; pub(crate) struct Other; macro_rules! made { () => {} }"),
        ];
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let found = Imports::of(&folder.join("lib.rs")).edges["a.rs"].clone();
        std::fs::remove_dir_all(folder).unwrap();
        found
    }

    #[test]
    fn every_way_to_name_a_file_is_seen() {
        let both = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        for (text, expected) in [
            ("use crate::b::Flat;", both(&["b.rs"])),
            ("use super::c::Other;", both(&["c.rs"])),
            ("use crate::{b::Flat, c::{self, Other}};", both(&["b.rs", "c.rs"])),
            ("use crate::c::*;", both(&["c.rs"])),
            // A re-export leads to the file that defines the item.
            ("use crate::b::Deep;", both(&["b/inner.rs"])),
            ("use crate::Item;", both(&["c.rs"])),
            ("use crate::b as other; fn f(_: other::Flat) {}", both(&["b.rs"])),
            ("fn f() -> crate::b::Flat { todo!() }", both(&["b.rs"])),
            ("macro_rules! m { () => { $crate::b::Flat } }", both(&["b.rs"])),
            ("macro_rules! m { () => { use $crate::{b::Flat, c::{Other}}; } }", both(&["b.rs", "c.rs"])),
            ("fn f() { m!(crate::c::Other, [crate::b::Deep]); }", both(&["b/inner.rs", "c.rs"])),
            ("use std::b::Flat; // crate::b::Flat", both(&[])),
            ("#[cfg(test)] mod tests { use crate::b::Flat; }", both(&[])),
        ] {
            assert_eq!(imports(text), expected, "{text}");
        }
    }
}
