//! The public items of the published crates, with their documentation.
//!
//! An item is public if the root of its crate re-exports its name, or if it stands in a public module. Of a public type that is
//! each of its public functions; of a public trait each of its functions. What is hidden from the documentation, and what stands
//! behind the feature `testing`, is left out.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Expr, File, ImplItem, Item, Lit, Meta, ReturnType, Signature, TraitItem};
use syn::{Type, TypeParamBound, UseTree, Visibility};

use crate::{files, root, shown};

/// A function, a type, a trait or a public module.
pub(crate) struct PublicItem {
    /// As users write it, for example `EventLoop::call_soon`.
    pub(crate) name: String,
    /// The file that has it.
    pub(crate) place: String,
    /// Its documentation, without the comment signs.
    pub(crate) docs: String,
    /// Whether users await it: an `async fn`, a function that returns `impl Future`, a type that implements `Future`.
    pub(crate) is_awaited: bool,
}

impl PublicItem {
    /// Whether an example shows it: one of its own, or one that calls it on the page of its type or trait. For a type that is
    /// any example on its page.
    pub(crate) fn has_example(&self, items: &[Self]) -> bool {
        let calls = |code: &str| match self.page() {
            Some((_, function)) => code
                .match_indices(&format!("{function}("))
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')),
            None => !code.is_empty(),
        };
        !examples_in(&self.docs).is_empty()
            || self.with_page(items).any(|item| calls(&examples_in(&item.docs)))
    }

    /// Whether it says under a heading what happens if its future is dropped, or its type says so for all its functions.
    pub(crate) fn has_cancel_safety(&self, items: &[Self]) -> bool {
        let has_heading = |item: &Self| item.docs.lines().any(|line| line == "# Cancel safety");
        let is_type = |item: &&Self| self.page().is_some_and(|(page, _)| item.name == page);
        has_heading(self) || items.iter().filter(is_type).any(has_heading)
    }

    /// The type or trait that has this function, and the function's name.
    fn page(&self) -> Option<(&str, &str)> {
        self.name.rsplit_once("::")
    }

    /// All that rustdoc shows on the same page.
    fn with_page<'a>(&self, items: &'a [Self]) -> impl Iterator<Item = &'a Self> {
        let page = self.page().map_or(self.name.as_str(), |(page, _)| page).to_owned();
        items.iter().filter(move |item| {
            item.name == page || item.page().is_some_and(|(other, _)| other == page)
        })
    }
}

impl fmt::Display for PublicItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.name)
    }
}

/// Those of `ringloop`, with what it re-exports of `ringloop-driver`: programs use nothing else of that crate.
pub(crate) fn all() -> Vec<PublicItem> {
    let ringloop = Crate::read("crates/ringloop");
    let mut driver = Crate::read("crates/ringloop-driver");
    driver.names.retain(|name| ringloop.names.contains(name));
    driver.modules.clear();
    let mut items = ringloop.items();
    items.extend(driver.items());
    items
}

/// The sources of a crate, and what its root shows of them.
struct Crate {
    files: Vec<(PathBuf, File)>,
    /// What the root re-exports.
    names: BTreeSet<String>,
    /// The files of public modules.
    modules: BTreeSet<PathBuf>,
    /// The types that implement `Future` or `IntoFuture`.
    futures: BTreeSet<String>,
}

impl Crate {
    fn read(folder: &str) -> Self {
        let sources = root().join(folder).join("src");
        let files = files().into_iter().filter(|file| file.starts_with(&sources));
        let files: Vec<_> = files.map(|file| (file.clone(), parse(&file))).collect();
        let names = BTreeSet::new();
        let modules = BTreeSet::new();
        let futures = BTreeSet::new();
        let mut read = Self { files: Vec::new(), names, modules, futures };
        for (file, tree) in &files {
            let is_root = *file == sources.join("lib.rs");
            tree.items.iter().for_each(|item| read.add(file, is_root, item));
        }
        Self { files, ..read }
    }

    fn add(&mut self, file: &Path, is_root: bool, item: &Item) {
        match item {
            Item::Use(item) if is_root && is_shown(&item.vis, &item.attrs) => {
                self.add_names(&item.tree);
            }
            Item::Mod(item) if is_shown(&item.vis, &item.attrs) => {
                self.modules.insert(file.with_file_name(format!("{}.rs", item.ident)));
            }
            Item::Impl(item) => {
                let Some((of, _)) = &item.trait_ else { return };
                let is_future = last(of) == "Future" || last(of) == "IntoFuture";
                self.futures.extend(name_of(&item.self_ty).filter(|_| is_future));
            }
            _ => {}
        }
    }

    fn items(&self) -> Vec<PublicItem> {
        let mut items = Vec::new();
        for (file, tree) in &self.files {
            let mut collector = Collector { file, of: self, items: &mut items };
            collector.items_of(&tree.items, "");
        }
        items
    }

    fn add_names(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => self.add_names(&path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_names(tree)),
            UseTree::Name(name) => {
                self.names.insert(name.ident.to_string());
            }
            _ => panic!("the root of a crate re-exports by name"),
        }
    }
}

struct Collector<'a> {
    file: &'a Path,
    of: &'a Crate,
    items: &'a mut Vec<PublicItem>,
}

impl Collector<'_> {
    fn items_of(&mut self, items: &[Item], module: &str) {
        for item in items {
            self.item(item, module);
        }
    }

    fn item(&mut self, item: &Item, module: &str) {
        match item {
            Item::Fn(item) if self.is_public(&item.vis, &item.sig.ident, &item.attrs) => {
                self.add(format!("{module}{}", item.sig.ident), &item.attrs, awaited(&item.sig));
            }
            Item::Struct(item) if self.is_public(&item.vis, &item.ident, &item.attrs) => {
                self.add_type(&item.ident, &item.attrs);
            }
            Item::Enum(item) if self.is_public(&item.vis, &item.ident, &item.attrs) => {
                self.add_type(&item.ident, &item.attrs);
            }
            Item::Trait(item) if self.is_public(&item.vis, &item.ident, &item.attrs) => {
                self.add(item.ident.to_string(), &item.attrs, false);
                for member in &item.items {
                    if let TraitItem::Fn(function) = member {
                        let name = format!("{}::{}", item.ident, function.sig.ident);
                        self.add(name, &function.attrs, awaited(&function.sig));
                    }
                }
            }
            Item::Impl(item) if item.trait_.is_none() => {
                let Some(name) = name_of(&item.self_ty) else { return };
                if !self.is_exported(&name) {
                    return;
                }
                for member in &item.items {
                    let ImplItem::Fn(function) = member else { continue };
                    if is_shown(&function.vis, &function.attrs) {
                        let name = format!("{name}::{}", function.sig.ident);
                        self.add(name, &function.attrs, awaited(&function.sig));
                    }
                }
            }
            Item::Mod(item) if is_shown(&item.vis, &item.attrs) => {
                let module = format!("{module}{}::", item.ident);
                if let Some((_, items)) = &item.content {
                    self.items_of(items, &module);
                }
            }
            _ => {}
        }
    }

    fn add_type(&mut self, name: &syn::Ident, attributes: &[Attribute]) {
        let name = name.to_string();
        let is_awaited = self.of.futures.contains(&name);
        self.add(name, attributes, is_awaited);
    }

    fn add(&mut self, name: String, attributes: &[Attribute], is_awaited: bool) {
        if !is_hidden(attributes) {
            let place = shown(self.file);
            self.items.push(PublicItem { name, place, docs: docs_of(attributes), is_awaited });
        }
    }

    fn is_public(&self, vis: &Visibility, name: &syn::Ident, attributes: &[Attribute]) -> bool {
        is_shown(vis, attributes) && self.is_exported(&name.to_string())
    }

    fn is_exported(&self, name: &str) -> bool {
        self.of.names.contains(name) || self.of.modules.contains(self.file)
    }
}

/// The blocks of Rust that the documentation tests compile, all in one.
fn examples_in(docs: &str) -> String {
    let mut code = String::new();
    let mut lines = docs.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.trim().strip_prefix("```") else { continue };
        let is_code = ["", "no_run", "should_panic", "compile_fail"].contains(&kind);
        for line in lines.by_ref().take_while(|line| line.trim() != "```") {
            if is_code {
                code.push_str(line);
                code.push('\n');
            }
        }
    }
    code
}

fn parse(file: &Path) -> File {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn is_shown(vis: &Visibility, attributes: &[Attribute]) -> bool {
    matches!(vis, Visibility::Public(_)) && !is_hidden(attributes)
}

/// `#[doc(hidden)]`, or behind the feature `testing`.
fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        let inside = list.tokens.to_string();
        (list.path.is_ident("doc") && inside == "hidden")
            || (list.path.is_ident("cfg") && inside.contains("\"testing\""))
    })
}

fn awaited(signature: &Signature) -> bool {
    let returns_future = match &signature.output {
        ReturnType::Type(_, returned) => match &**returned {
            Type::ImplTrait(returned) => returned.bounds.iter().any(|bound| match bound {
                TypeParamBound::Trait(bound) => last(&bound.path) == "Future",
                _ => false,
            }),
            _ => false,
        },
        ReturnType::Default => false,
    };
    signature.asyncness.is_some() || returns_future
}

fn name_of(of: &Type) -> Option<String> {
    let Type::Path(path) = of else { return None };
    Some(last(&path.path))
}

fn last(path: &syn::Path) -> String {
    path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
}

fn docs_of(attributes: &[Attribute]) -> String {
    let mut docs = String::new();
    for attribute in attributes {
        let Meta::NameValue(pair) = &attribute.meta else { continue };
        if !pair.path.is_ident("doc") {
            continue;
        }
        if let Expr::Lit(literal) = &pair.value {
            if let Lit::Str(text) = &literal.lit {
                docs.push_str(text.value().strip_prefix(' ').unwrap_or(&text.value()));
                docs.push('\n');
            }
        }
    }
    docs
}
